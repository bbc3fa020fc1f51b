// What every instruction-set level offers: the same functions, compiled from the same source (kernels.cpp).
#pragma once

#include <cstddef>

namespace plastic {

struct Level {
    const char* name;
    float (*sum)(const float* values, std::size_t size);
};

// Of the levels compiled, the one of that name, or null: where it is unknown, or this processor cannot run it.
const Level* level(const char* name);

// The last of the levels, from the slowest to the fastest, that this processor can run.
const Level* best();

// Names of the levels that this processor can run, best last, until null.
const char* const* levels();

}  // namespace plastic
