#include "dispatch.h"

namespace plastic {

namespace baseline {
extern const Level level;
}
#if defined(PLASTIC_X86_64)
namespace avx2 {
extern const Level level;
}
namespace avx512 {
extern const Level level;
}
#endif

Levels levels() {
    Levels all{{&baseline::level}, 1};
#if defined(PLASTIC_X86_64)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) all.found[all.count++] = &avx2::level;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        all.found[all.count++] = &avx512::level;
#endif
    return all;
}

}  // namespace plastic
