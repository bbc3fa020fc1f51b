// Which levels this processor can run, asked once. Compiled for any processor.
#include <cstring>

#include "level.h"

namespace plastic {

namespace baseline {
extern const Level level;
}
#ifdef PLASTIC_X86_64
namespace avx2 {
extern const Level level;
}
namespace avx512 {
extern const Level level;
}
#endif

namespace {

struct Supported {
    const Level* levels[3] = {};
    const char* names[4] = {};  // null after the last
    int count = 0;

    void add(const Level& level) {
        levels[count] = &level;
        names[count++] = level.name;
    }

    Supported() {
        add(baseline::level);
#ifdef PLASTIC_X86_64
        // These ask the operating system too whether it keeps the wide registers.
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2")) add(avx2::level);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
            add(avx512::level);
#endif
    }
};

const Supported& supported() {
    static const Supported found;
    return found;
}

}  // namespace

const Level* level(const char* name) {
    for (int i = 0; i < supported().count; ++i)
        if (std::strcmp(supported().names[i], name) == 0) return supported().levels[i];
    return nullptr;
}

const Level* best() { return supported().levels[supported().count - 1]; }

const char* const* levels() { return supported().names; }

}  // namespace plastic
