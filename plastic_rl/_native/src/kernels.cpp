// Compiled once a level, with PLASTIC_LEVEL the level's name. What is here must stay in the level's namespace: a function
// that the linker could take for the same one of another level would run instructions that this processor may not have.
// tests/native/test_build.py holds it to that.
#include "level.h"

#define PLASTIC_STRING_OF(name) #name
#define PLASTIC_STRING(name) PLASTIC_STRING_OF(name)

namespace plastic {
namespace PLASTIC_LEVEL {

namespace {

constexpr std::size_t lanes = 16;

// Sixteen partial sums, added in the same order at every level: all give the same bits.
float sum(const float* values, std::size_t size) {
    float partial[lanes] = {};
    std::size_t start = 0;
    for (; start + lanes <= size; start += lanes)
        for (std::size_t lane = 0; lane < lanes; ++lane) partial[lane] += values[start + lane];
    for (std::size_t lane = 0; start + lane < size; ++lane) partial[lane] += values[start + lane];
    float total = 0;
    for (std::size_t lane = 0; lane < lanes; ++lane) total += partial[lane];
    return total;
}

}  // namespace

extern const Level level;
const Level level = {PLASTIC_STRING(PLASTIC_LEVEL), sum};

}  // namespace PLASTIC_LEVEL
}  // namespace plastic
