// Sixteen lanes of float32, made of native registers: one source for every instruction set.
//
// Each level of instructions compiles this file into a namespace of its own, `plastic::PLASTIC_LEVEL`, without anything
// of the standard library that has a body: an inline function that the linker shares between levels could bring
// instructions of one level into another. Products and sums are rounded separately, reductions have one tree, and no
// function of libm is called, so that every level computes the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
#define PLASTIC_WIDTH 16
#include <immintrin.h>
#elif defined(__AVX2__)
#define PLASTIC_WIDTH 8
#include <immintrin.h>
#else
#define PLASTIC_WIDTH 4
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#endif

#define PLASTIC_INLINE static inline __attribute__((always_inline))

namespace plastic::PLASTIC_LEVEL {
namespace {

constexpr int LANES = 16;
constexpr int REGISTERS = LANES / PLASTIC_WIDTH;

typedef float Floats __attribute__((vector_size(4 * PLASTIC_WIDTH)));
typedef float LooseFloats __attribute__((vector_size(4 * PLASTIC_WIDTH), aligned(4)));
typedef std::int32_t Integers __attribute__((vector_size(4 * PLASTIC_WIDTH)));
typedef float Quad __attribute__((vector_size(16)));
typedef float LooseQuad __attribute__((vector_size(16), aligned(4)));

struct V {
    Floats part[REGISTERS];
};

#define PLASTIC_EACH for (int k = 0; k < REGISTERS; k++)

PLASTIC_INLINE V load(const float* from) {
    V r;
    PLASTIC_EACH r.part[k] = *reinterpret_cast<const LooseFloats*>(from + PLASTIC_WIDTH * k);
    return r;
}
PLASTIC_INLINE void store(float* to, V a) {
    PLASTIC_EACH *reinterpret_cast<LooseFloats*>(to + PLASTIC_WIDTH * k) = a.part[k];
}
PLASTIC_INLINE V all(float x) {
    V r;
    PLASTIC_EACH r.part[k] = Floats{} + x;
    return r;
}
PLASTIC_INLINE V zero() {
    V r;
    PLASTIC_EACH r.part[k] = Floats{};
    return r;
}
PLASTIC_INLINE V operator+(V a, V b) {
    V r;
    PLASTIC_EACH r.part[k] = a.part[k] + b.part[k];
    return r;
}
PLASTIC_INLINE V operator-(V a, V b) {
    V r;
    PLASTIC_EACH r.part[k] = a.part[k] - b.part[k];
    return r;
}
PLASTIC_INLINE V operator*(V a, V b) {
    V r;
    PLASTIC_EACH r.part[k] = a.part[k] * b.part[k];
    return r;
}
PLASTIC_INLINE V operator/(V a, V b) {
    V r;
    PLASTIC_EACH r.part[k] = a.part[k] / b.part[k];
    return r;
}

// `a < b ? a : b`, so that a NaN in `b` stays one.
PLASTIC_INLINE V lesser(V a, V b) {
    V r;
#if PLASTIC_WIDTH == 16
    PLASTIC_EACH r.part[k] = (Floats)_mm512_min_ps((__m512)a.part[k], (__m512)b.part[k]);
#elif PLASTIC_WIDTH == 8
    PLASTIC_EACH r.part[k] = (Floats)_mm256_min_ps((__m256)a.part[k], (__m256)b.part[k]);
#elif defined(__SSE2__)
    PLASTIC_EACH r.part[k] = (Floats)_mm_min_ps((__m128)a.part[k], (__m128)b.part[k]);
#else
    PLASTIC_EACH r.part[k] = a.part[k] < b.part[k] ? a.part[k] : b.part[k];
#endif
    return r;
}
// `a > b ? a : b`, likewise.
PLASTIC_INLINE V greater(V a, V b) {
    V r;
#if PLASTIC_WIDTH == 16
    PLASTIC_EACH r.part[k] = (Floats)_mm512_max_ps((__m512)a.part[k], (__m512)b.part[k]);
#elif PLASTIC_WIDTH == 8
    PLASTIC_EACH r.part[k] = (Floats)_mm256_max_ps((__m256)a.part[k], (__m256)b.part[k]);
#elif defined(__SSE2__)
    PLASTIC_EACH r.part[k] = (Floats)_mm_max_ps((__m128)a.part[k], (__m128)b.part[k]);
#else
    PLASTIC_EACH r.part[k] = a.part[k] > b.part[k] ? a.part[k] : b.part[k];
#endif
    return r;
}
// `a` within +-bound. What a NaN becomes is left open.
PLASTIC_INLINE V clipped(V a, V bound) {
#if PLASTIC_WIDTH == 16
    V r;  // one instruction: the lesser magnitude, with the sign of the first
    PLASTIC_EACH r.part[k] = (Floats)_mm512_range_ps((__m512)a.part[k], (__m512)bound.part[k], 2);
    return r;
#else
    return lesser(bound, greater(zero() - bound, a));
#endif
}
// `x` where `a == b`, else 0.
PLASTIC_INLINE V where_equal(V a, V b, V x) {
    V r;
#if PLASTIC_WIDTH == 16
    PLASTIC_EACH r.part[k] = (Floats)_mm512_maskz_mov_ps(
        _mm512_cmp_ps_mask((__m512)a.part[k], (__m512)b.part[k], _CMP_EQ_OQ), (__m512)x.part[k]);
#else
    PLASTIC_EACH r.part[k] = (Floats)((Integers)(a.part[k] == b.part[k]) & (Integers)x.part[k]);
#endif
    return r;
}
// `x` where `a < b`, else `y`.
PLASTIC_INLINE V where_less(V a, V b, V x, V y) {
    V r;
    PLASTIC_EACH r.part[k] = a.part[k] < b.part[k] ? x.part[k] : y.part[k];
    return r;
}
PLASTIC_INLINE V magnitude(V a) {
    V r;
    PLASTIC_EACH r.part[k] = (Floats)((Integers)a.part[k] & 0x7fffffff);
    return r;
}
PLASTIC_INLINE V root(V a) {
    V r;
#if PLASTIC_WIDTH == 16
    PLASTIC_EACH r.part[k] = (Floats)_mm512_sqrt_ps((__m512)a.part[k]);
#elif PLASTIC_WIDTH == 8
    PLASTIC_EACH r.part[k] = (Floats)_mm256_sqrt_ps((__m256)a.part[k]);
#elif defined(__SSE2__)
    PLASTIC_EACH r.part[k] = (Floats)_mm_sqrt_ps((__m128)a.part[k]);
#else
    PLASTIC_EACH for (int i = 0; i < PLASTIC_WIDTH; i++) r.part[k][i] = __builtin_sqrtf(a.part[k][i]);
#endif
    return r;
}
// `size`, which is not negative, with the sign of `sign`.
PLASTIC_INLINE V signed_like(V size, V sign) {
    V r;
    PLASTIC_EACH r.part[k] =
        (Floats)((Integers)size.part[k] | ((Integers)sign.part[k] & (std::int32_t)0x80000000));
    return r;
}

// Sum of all lanes: a tree of halves.
PLASTIC_INLINE float sum(V a) {
    float lane[LANES];
    store(lane, a);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

// Sums, by the same tree, of four rows of sixteen.
PLASTIC_INLINE Quad sums_of_four(const float* rows) {
    Quad half[4];
    for (int i = 0; i < 4; i++) {
        const LooseQuad* row = reinterpret_cast<const LooseQuad*>(rows + LANES * i);
        half[i] = (Quad(row[0]) + Quad(row[2])) + (Quad(row[1]) + Quad(row[3]));
    }
    Quad ab_low = __builtin_shufflevector(half[0], half[1], 0, 4, 1, 5);
    Quad ab_high = __builtin_shufflevector(half[0], half[1], 2, 6, 3, 7);
    Quad cd_low = __builtin_shufflevector(half[2], half[3], 0, 4, 1, 5);
    Quad cd_high = __builtin_shufflevector(half[2], half[3], 2, 6, 3, 7);
    Quad first = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    Quad second = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    Quad third = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    Quad fourth = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
    return (first + third) + (second + fourth);
}

// e^x, 1 unit in the last place, for x from -87 to 88, and at these ends beyond (Cephes' expf, Moshier 1992).
PLASTIC_INLINE V exponential(V x) {
    x = lesser(all(88.0f), greater(all(-87.0f), x));
    const V magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    V shifted = x * all(1.44269504088896341f) + magic;
    V whole = shifted - magic;
    V r = x - whole * all(0.693359375f);
    r = r - whole * all(-2.12194440e-4f);
    V p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * (r * r) + (r + all(1.0f));
    V power;
    PLASTIC_EACH power.part[k] = (Floats)((((Integers)shifted.part[k] & 0x1ff) << 23) + 0x3f800000);
    return p * power;
}

// tanh x: Cephes' polynomial up to .625, 1 - 2 / (e^2x + 1) beyond.
PLASTIC_INLINE V hyperbolic_tangent(V x) {
    V size = magnitude(x), z = x * x;
    V p = all(-5.70498872745e-3f);
    p = p * z + all(2.06390887954e-2f);
    p = p * z + all(-5.37397155531e-2f);
    p = p * z + all(1.33314422036e-1f);
    p = p * z + all(-3.33332819422e-1f);
    V near = (p * z) * x + x;
    V far = signed_like(all(1.0f) - all(2.0f) / (exponential(size + size) + all(1.0f)), x);
    return where_less(size, all(0.625f), near, far);
}

// `a` rounded to a multiple of 2^-123: no denormal number, which processors are slow at, is left to decay further.
PLASTIC_INLINE V settled(V a) {
    const V tiny = all(7.888609e-31f);  // 2^-100
    return (a + tiny) - tiny;
}

PLASTIC_INLINE void clear(float* to, std::size_t count) { __builtin_memset(to, 0, count * sizeof(float)); }
PLASTIC_INLINE void copy(float* to, const float* from, std::size_t count) {
    __builtin_memcpy(to, from, count * sizeof(float));
}

}  // namespace
}  // namespace plastic::PLASTIC_LEVEL
