// Which levels of instructions there are, and which of them this processor has.
#pragma once

#include "level.h"

namespace plastic {

// The levels that were compiled and that this processor runs, the fastest last.
struct Levels {
    const Level* found[3];
    std::size_t count;
};
Levels levels();

}  // namespace plastic
