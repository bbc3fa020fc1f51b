// The update of synapses, and its adjoint, on sixteen postsynaptic lanes of one presynaptic unit.
//
// `advance` is the one statement of a rule: acting, the forward pass and the recomputation of the backward pass call it,
// so that a trace at the edge of its clip cannot come out on the other side when it is computed again.
#pragma once

#include "lanes.h"
#include "level.h"

namespace plastic::PLASTIC_LEVEL {
namespace {



// Hebb's term under one gain, rate and decay for all synapses onto a unit: the hot path.
//
//     F' = clip(keep F + x g),   g = G y          not traced
//     F' = clip(F + G E),   E' = (1 - r) E + x (r y)
template <bool TRACED_, bool DECAYS_>
struct Hebb {
    static constexpr bool TRACED = TRACED_, DECAYS = DECAYS_, SIMPLE = true;
    // Whether the adjoint needs the trace after the update alone, and not the one before.
    static constexpr bool LOOKS_AHEAD = !DECAYS_;

    // What the units of sixteen lanes bring.
    struct Columns {
        V g;      // G y, or G
        V keep;   // where it decays
        V rated;  // r y, where traced
        V kept;   // 1 - r
    };

    // Returns the trace before its clip; F and E become those after the update.
    PLASTIC_INLINE V advance(V& F, V& E, V x, const Columns& c, float clip) {
        V raw = DECAYS ? c.keep * F : F;
        raw = raw + (TRACED ? c.g * E : x * c.g);
        if constexpr (DECAYS) raw = settled(raw);
        if constexpr (TRACED) E = settled(c.kept * E + x * c.rated);
        F = clipped(raw, all(clip));
        return raw;
    }
};

// Any member of the family; gain, rate and decay may be of each synapse.
//
//     D = y x, or y (x - y F);  A = G D, or G E;  E' = (1 - r) E + r D
//     F' = clip(keep F + A), or clip(F + A - |A| F)
template <bool OJA_, bool TRACED_, bool SOFT_>
struct General {
    static constexpr bool OJA = OJA_, TRACED = TRACED_, SOFT = SOFT_, DECAYS = !SOFT_, SIMPLE = false;
    static constexpr bool LOOKS_AHEAD = false;

    struct Columns {
        V y, gate, keep, rate;
    };

    PLASTIC_INLINE V change(V F, V x, V y) {
        if constexpr (OJA) return y * (x - y * F);
        return y * x;
    }

    PLASTIC_INLINE V advance(V& F, V& E, V x, const Columns& c, float clip) {
        V D = change(F, x, c.y);
        V A = c.gate * (TRACED ? E : D);
        V raw;
        if constexpr (SOFT)
            raw = (F + A) - magnitude(A) * F;
        else
            raw = settled(c.keep * F + A);
        if constexpr (TRACED) E = settled((all(1.0f) - c.rate) * E + c.rate * D);
        F = clipped(raw, all(clip));
        return raw;
    }
};

}  // namespace
}  // namespace plastic::PLASTIC_LEVEL
