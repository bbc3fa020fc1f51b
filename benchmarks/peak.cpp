// What one thread of this machine can do: multiplications and additions by the second, with separate rounding as the
// native core has it, and bytes read from the second cache. Compiled for a level of instructions by `peak.py`.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef float V __attribute__((vector_size(4 * WIDTH)));

constexpr int CHAINS = WIDTH == 16 ? 24 : 12;  // more than the latencies of both need, and all in registers

double cpu_seconds() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

volatile float sink;

void keep(const V* values) {
    float total = 0.0f;
    for (int i = 0; i < CHAINS; i++) total += values[i][0];
    sink = total;
}

double arithmetic() {
    constexpr long ROUNDS = 4000000;
    V x[CHAINS], factor = V{} + (0.5f + sink), term = factor;  // `sink`: not known to the compiler
    for (int i = 0; i < CHAINS; i++) x[i] = V{} + float(i);
    double begun = cpu_seconds();
    for (long round = 0; round < ROUNDS; round++)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) x[i] = x[i] * factor + term;
    double seconds = cpu_seconds() - begun;
    keep(x);
    return 2.0 * WIDTH * CHAINS * ROUNDS / seconds;
}

double reading(std::size_t bytes) {
    std::size_t vectors = bytes / sizeof(V) / CHAINS * CHAINS;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, vectors * sizeof(V))) return 0.0;
    V* data = static_cast<V*>(memory);
    for (std::size_t i = 0; i < vectors; i++) data[i] = V{};
    V total[CHAINS] = {};
    long rounds = long(1000000000 / (vectors * sizeof(V)));
    double begun = cpu_seconds();
    for (long round = 0; round < rounds; round++) {
        for (std::size_t first = 0; first < vectors; first += CHAINS)
#pragma GCC unroll 24
            for (int i = 0; i < CHAINS; i++) total[i] += data[first + i];
        asm volatile("" ::: "memory");  // read again
    }
    double seconds = cpu_seconds() - begun;
    keep(total);
    free(memory);
    return double(rounds) * vectors * sizeof(V) / seconds;
}

// The best of five, for others only take away: FLOP and bytes by the second.
int main(int count, char** arguments) {
    std::size_t bytes = count > 1 ? std::strtoul(arguments[1], nullptr, 10) : 262144;
    double flops = 0.0, read = 0.0;
    for (int trial = 0; trial < 5; trial++) {
        double a = arithmetic(), b = reading(bytes);
        flops = a > flops ? a : flops;
        read = b > read ? b : read;
    }
    std::printf("%.6g %.6g\n", flops, read);
}
