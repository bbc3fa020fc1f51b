// A plastic recurrent network in one level of instructions; see `level.h` for what it computes and in which layout.
//
// Acting takes one pass over the trace a step. Going back, each lifetime's traces are rolled forward once, kept at
// checkpoints, and computed again between two of them; then one pass a step applies the adjoint of the forward product
// and of the update together. Sums over presynaptic units run in their order, sums over postsynaptic lanes in the order
// of the vectors and then by one tree, whatever the width of a block of columns is: that is a level's own choice.
#include "lanes.h"
#include "level.h"
#include "synapse.h"

namespace plastic::PLASTIC_LEVEL {
namespace {

typedef std::size_t Size;

// Vectors of columns in a block, and of rows and columns in a tile that is rolled: as the registers of a level hold them.
#if PLASTIC_WIDTH == 16
constexpr int FORWARD_BLOCK = 8, BACKWARD_BLOCK = 8, TRACED_BLOCK = 4;
constexpr int ROLL_ROWS = 4, ROLL_BLOCK = 4, TRACED_ROLL_ROWS = 2, TRACED_ROLL_BLOCK = 4;
#elif PLASTIC_WIDTH == 8
constexpr int FORWARD_BLOCK = 2, BACKWARD_BLOCK = 2, TRACED_BLOCK = 2;
constexpr int ROLL_ROWS = 1, ROLL_BLOCK = 2, TRACED_ROLL_ROWS = 1, TRACED_ROLL_BLOCK = 1;
#else
constexpr int FORWARD_BLOCK = 2, BACKWARD_BLOCK = 2, TRACED_BLOCK = 2;
constexpr int ROLL_ROWS = 1, ROLL_BLOCK = 1, TRACED_ROLL_ROWS = 1, TRACED_ROLL_BLOCK = 1;
#endif
// Bytes of weights and gains that stay in the first cache while all lifetimes pass over them.
constexpr Size TILE = 20480;
// Bytes of traces that stay in the second cache from one step to the next.
constexpr Size GROUP = 700000;

template <int N>
struct Number {
    static constexpr int value = N;
};

// Calls `run(Number<n>, first column)` for blocks of n vectors, of about the same width, at most MOST.
template <int MOST, class Run>
PLASTIC_INLINE void blocks(Size lanes, Run run) {
    Size left = lanes / LANES, first = 0;
    while (left) {
        Size pieces = (left + MOST - 1) / MOST;
        Size n = (left + pieces - 1) / pieces;
        switch (n) {
            case 1: run(Number<1>{}, first); break;
            case 2: if constexpr (MOST >= 2) run(Number<2>{}, first); break;
            case 3: if constexpr (MOST >= 3) run(Number<3>{}, first); break;
            case 4: if constexpr (MOST >= 4) run(Number<4>{}, first); break;
            case 5: if constexpr (MOST >= 5) run(Number<5>{}, first); break;
            case 6: if constexpr (MOST >= 6) run(Number<6>{}, first); break;
            case 7: if constexpr (MOST >= 7) run(Number<7>{}, first); break;
            default: if constexpr (MOST >= 8) run(Number<8>{}, first); break;
        }
        first += n * LANES;
        left -= n;
    }
}

// What an update into a step reads of one lifetime.
struct Update {
    const float* pre;    // x
    const float* post;   // y
    const float* gated;  // G y, or G
    float amount;        // times the gate of each synapse
    std::uint8_t flags;
};

// Rows of a matrix of one individual.
struct Rows {
    const float* data;
    Size step;  // 0 where all are alike
    const float* at(Size row) const { return data + row * step; }
};

// One individual's numbers.
struct Numbers {
    Size units, lanes;
    float clip;
    Rows weight, alpha, gate, keep, rate;
};

Rows rows_of(const Matrix& matrix, Size individual, Size lanes) {
    return {matrix.data ? matrix.data + individual * matrix.rows * lanes : nullptr, matrix.rows > 1 ? lanes : 0};
}

Numbers numbers_of(const Network& network, Size individual) {
    const Parameters& own = network.parameters;
    Size lanes = network.sizes.lanes;
    return {network.sizes.units,
            lanes,
            network.rule.clip,
            rows_of(own.weight, individual, lanes),
            rows_of(own.alpha, individual, lanes),
            rows_of(own.gate, individual, lanes),
            rows_of(own.keep, individual, lanes),
            rows_of(own.rate, individual, lanes)};
}

// The columns of a simple rule, the same for all presynaptic units.
template <class Rule>
PLASTIC_INLINE typename Rule::Columns columns_of(const Numbers& numbers, const Update& update, Size column) {
    typename Rule::Columns own;
    own.g = load(update.gated + column);
    if constexpr (Rule::DECAYS) own.keep = load(numbers.keep.data + column);
    if constexpr (Rule::TRACED) {
        V rate = load(numbers.rate.data + column);
        own.rated = rate * load(update.post + column);
        own.kept = all(1.0f) - rate;
    }
    return own;
}

// The columns of any other rule, for one presynaptic unit; the gain without its amount in `plain_gate`.
template <class Rule>
PLASTIC_INLINE typename Rule::Columns columns_at(
    const Numbers& numbers, const Update& update, Size row, Size column, V& plain_gate) {
    typename Rule::Columns own;
    own.y = load(update.post + column);
    plain_gate = load(numbers.gate.data ? numbers.gate.at(row) + column : update.gated + column);
    own.gate = all(update.amount) * plain_gate;
    if constexpr (Rule::DECAYS) own.keep = load(numbers.keep.at(row) + column);
    if constexpr (Rule::TRACED) own.rate = load(numbers.rate.at(row) + column);
    return own;
}

// --- forward ---------------------------------------------------------------------------------------------------------

// The update of rows [first, first + count) of a trace, where UPDATE, and their part of the product, where PRODUCT.
template <class Rule, bool UPDATE, bool PRODUCT, int NB>
PLASTIC_INLINE void forward_block(const Numbers& numbers, Size first, Size count, float* trace, float* eligibility,
                                  const Update& update, const float* x, float* z, Size column) {
    V total[NB];
    typename Rule::Columns columns[NB];
    for (int v = 0; v < NB; v++) {
        if constexpr (PRODUCT) total[v] = load(z + column + LANES * v);
        if constexpr (UPDATE && Rule::SIMPLE) columns[v] = columns_of<Rule>(numbers, update, column + LANES * v);
    }
    for (Size i = first; i < first + count; i++) {
        V pre = UPDATE ? all(update.pre[i]) : zero();
        V input = PRODUCT ? all(x[i]) : zero();
        float* F = trace + i * numbers.lanes + column;
        float* E = eligibility + i * numbers.lanes + column;
        const float* w = numbers.weight.at(i) + column;
        const float* alpha = numbers.alpha.at(i) + column;
#pragma GCC unroll 8
        for (int v = 0; v < NB; v++) {
            V f = load(F + LANES * v);
            if constexpr (UPDATE) {
                V e = Rule::TRACED ? load(E + LANES * v) : zero(), unused;
                if constexpr (!Rule::SIMPLE)
                    columns[v] = columns_at<Rule>(numbers, update, i, column + LANES * v, unused);
                Rule::advance(f, e, pre, columns[v], numbers.clip);
                store(F + LANES * v, f);
                if constexpr (Rule::TRACED) store(E + LANES * v, e);
            }
            if constexpr (PRODUCT) total[v] = total[v] + input * (load(alpha + LANES * v) * f + load(w + LANES * v));
        }
    }
    if constexpr (PRODUCT)
        for (int v = 0; v < NB; v++) store(z + column + LANES * v, total[v]);
}

template <class Rule, bool UPDATE, bool PRODUCT>
void forward(const Numbers& numbers, Size first, Size count, float* trace, float* eligibility, const Update& update,
             const float* x, float* z) {
    constexpr int MOST = Rule::SIMPLE && UPDATE && PRODUCT ? FORWARD_BLOCK : 1;
    blocks<MOST>(numbers.lanes, [&](auto number, Size column) __attribute__((always_inline)) {
        forward_block<Rule, UPDATE, PRODUCT, decltype(number)::value>(
            numbers, first, count, trace, eligibility, update, x, z, column);
    });
}

struct Lifetime {
    const Network& network;
    Size row, individual;

    Size rows() const { return network.sizes.individuals * network.sizes.lifetimes; }
    Size place(Size time) const { return time * rows() + row; }
    const float* post(Size time) const { return network.sequences.post + place(time) * network.sizes.lanes; }
    std::uint8_t flags(Size time) const { return network.sequences.flags[place(time)]; }
};

const float* zeros() {
    alignas(64) static const float none[16384] = {};
    return none;
}

// x of step `time`: y of the step before, or 0 after a reset.
const float* presynaptic(const Lifetime& own, Size time) {
    return own.flags(time) & RESETS_ACTIVITY ? zeros() : own.post(time);
}

// x of the update into step `time`.
const float* updating_pre(const Lifetime& own, Size time) {
    const float* first = own.network.sequences.presynaptic;
    if (time) return presynaptic(own, time - 1);
    return first ? first + own.row * own.network.sizes.lanes : zeros();
}

Update update_into(const Lifetime& own, Size time) {
    const Network& network = own.network;
    const Sequences& sequences = network.sequences;
    Size lanes = network.sizes.lanes;
    const float* pre = updating_pre(own, time);
    float amount = 1.0f;
    if (network.rule.gate_by_synapse && network.sizes.signals)
        amount = sequences.signal[own.place(time) * network.sizes.signals];
    const float* post = own.post(time);
    if (network.rule.shifted) {
        post = sequences.shifted_post + own.place(time) * lanes;
        pre = sequences.shifted_pre + own.place(time) * lanes;
    }
    return {pre, post, sequences.gated + own.place(time) * lanes, amount, own.flags(time)};
}

// G = offset + sum_k fan_k C_k, for sixteen units.
PLASTIC_INLINE V gain_of(const Network& network, Size individual, const float* signal, Size column) {
    Size lanes = network.sizes.lanes, count = network.sizes.signals;
    V gain = load(network.parameters.offset + individual * lanes + column);
    for (Size k = 0; k < count; k++) {
        V fan = load(network.parameters.fan + (individual * count + k) * lanes + column);
        gain = fan * all(signal[k]) + gain;
    }
    return gain;
}

PLASTIC_INLINE float dot(const float* a, const float* b, Size lanes) {
    V total = zero();
    for (Size o = 0; o < lanes; o += LANES) total = total + load(a + o) * load(b + o);
    return sum(total);
}

PLASTIC_INLINE float tanh_of(float x) {
    float lane[LANES];
    store(lane, hyperbolic_tangent(all(x)));
    return lane[0];
}

// The computed signal and the gains of the update into step `time`. A clip may swallow what a gain that is not finite
// does to a trace: the drive `z` of its unit, if given, then becomes NaN.
void prepare_update(const Lifetime& own, Size time, float* z) {
    const Network& network = own.network;
    const Rule& rule = network.rule;
    Size lanes = network.sizes.lanes, count = network.sizes.signals;
    const float* y = own.post(time);
    float* signal = network.sequences.signal + own.place(time) * count;
    if (rule.computes_signal) {
        const float* weight = network.parameters.modulator + own.individual * lanes;
        signal[0] = tanh_of(dot(y, weight, lanes) + network.parameters.modulator_bias[own.individual]);
    }
    if (rule.shifted) {
        const float* x = updating_pre(own, time);
        const Parameters& parameters = network.parameters;
        for (Size o = 0; o < lanes; o += LANES) {
            Size row = own.individual * lanes + o, place = own.place(time) * lanes + o;
            store(network.sequences.shifted_post + place, load(y + o) - load(parameters.shift_post + row));
            store(network.sequences.shifted_pre + place, load(x + o) - load(parameters.shift_pre + row));
        }
    }
    if (rule.gate_by_synapse) return;
    float* gated = network.sequences.gated + own.place(time) * lanes;
    for (Size o = 0; o < lanes; o += LANES) {
        V gain = gain_of(network, own.individual, signal, o);
        if (z) store(z + o, load(z + o) + (gain - gain));
        const float* post = rule.shifted ? network.sequences.shifted_post + own.place(time) * lanes : y;
        store(gated + o, rule.simple && !rule.traced ? gain * load(post + o) : gain);
    }
}

void drive(const Lifetime& own, Size time, float* z) {
    const Network& network = own.network;
    Size lanes = network.sizes.lanes, inputs = network.sizes.inputs;
    if (network.sequences.drive) {
        copy(z, network.sequences.drive + own.place(time) * lanes, lanes);
        return;
    }
    copy(z, network.parameters.bias + own.individual * lanes, lanes);
    const float* observation = network.sequences.observation + own.place(time) * inputs;
    const float* weights = network.parameters.input + own.individual * inputs * lanes;
    for (Size k = 0; k < inputs; k++) {
        if (observation[k] == 0.0f) continue;  // walls, one-hot actions: most are
        V x = all(observation[k]);
        const float* row = weights + k * lanes;
        for (Size o = 0; o < lanes; o += LANES) store(z + o, x * load(row + o) + load(z + o));
    }
}

// What happens to one lifetime's synapses before a step, where it is more than an update.
template <class Rule>
void begin(const Numbers& numbers, const Update& update, float* trace, float* eligibility) {
    Size matrix = numbers.units * numbers.lanes;
    if (update.flags & UPDATES)
        forward<Rule, true, false>(numbers, 0, numbers.units, trace, eligibility, update, nullptr, nullptr);
    if (update.flags & RESETS_TRACE) clear(trace, matrix);
    if (Rule::TRACED && (update.flags & RESETS_ELIGIBILITY)) clear(eligibility, matrix);
}

// An action by the softmax of `count` outputs: by inverse cumulative distribution at `noise`, or the most probable one.
std::int64_t choice_of(const float* output, Size count, Choice choice, float noise) {
    float largest = output[0];
    std::int64_t first = 0;
    for (Size k = 1; k < count; k++)
        if (output[k] > largest) largest = output[k], first = k;
    if (choice == MOST_PROBABLE) return first;
    float cumulative = 0.0f, total = 0.0f, lane[LANES];
    for (int pass = 0; pass < 2; pass++) {
        std::int64_t chosen = 0;
        for (Size k = 0; k < count; k += LANES) {
            Size here = count - k < LANES ? count - k : LANES;
            clear(lane, LANES);
            copy(lane, output + k, here);
            store(lane, exponential(load(lane) - all(largest)));
            for (Size i = 0; i < here; i++) {
                if (!pass) {
                    total += lane[i];
                } else {
                    cumulative += lane[i] / total;
                    // Leaving the last one out keeps the choice valid whatever the rounding of the sum.
                    chosen += cumulative <= noise && k + i + 1 < count;
                }
            }
        }
        if (pass) return chosen;
    }
    return 0;
}

// Outputs V y + c of a step, and what is chosen by them.
bool read_out(const Lifetime& own, Size time, Choice choice) {
    const Network& network = own.network;
    Size lanes = network.sizes.lanes, count = network.sizes.outputs;
    const float* y = own.post(time + 1);
    float* output = network.sequences.output + own.place(time) * count;
    bool well = true;
    for (Size k = 0; k < count; k++) {
        Size row = own.individual * count + k;
        output[k] = dot(y, network.parameters.head + row * lanes, lanes) + network.parameters.head_bias[row];
        well = well && output[k] < __builtin_inff();
    }
    if (choice != OUTPUTS) {
        float noise = choice == SAMPLES ? network.sequences.noise[own.place(time)] : 0.0f;
        network.sequences.action[own.place(time)] = choice_of(output, count, choice, noise);
    }
    return well;
}

// Takes a step in some lifetimes of one individual, rows [from, to).
template <class Rule>
bool step_rows(const Network& network, const Numbers& numbers, Size individual, Size from, Size to, Size time,
               Choice choice) {
    const Sizes& sizes = network.sizes;
    Size matrix = sizes.units * sizes.lanes;
    bool well = true;
    auto eligibility_of = [&](Size row) { return network.state.eligibility + (Rule::TRACED ? row * matrix : 0); };
    for (Size row = from; row < to; row++) {
        Lifetime own{network, row, individual};
        float* z = network.sequences.post + own.place(time + 1) * sizes.lanes;
        drive(own, time, z);
        std::uint8_t flags = own.flags(time);
        if (flags & UPDATES) prepare_update(own, time, z);
        if (flags & (RESETS_TRACE | RESETS_ELIGIBILITY))
            begin<Rule>(numbers, update_into(own, time), network.state.trace + row * matrix, eligibility_of(row));
    }
    Size tile = to - from > 1 ? TILE / (sizes.lanes * 8) : sizes.units;
    if (!tile) tile = 1;
    for (Size first = 0; first < sizes.units; first += tile) {
        Size count = sizes.units - first < tile ? sizes.units - first : tile;
        for (Size row = from; row < to; row++) {
            Lifetime own{network, row, individual};
            Update update = update_into(own, time);
            float* trace = network.state.trace + row * matrix;
            const float* x = presynaptic(own, time);
            float* z = network.sequences.post + own.place(time + 1) * sizes.lanes;
            bool resets = update.flags & (RESETS_TRACE | RESETS_ELIGIBILITY);
            if ((update.flags & UPDATES) && !resets)
                forward<Rule, true, true>(numbers, first, count, trace, eligibility_of(row), update, x, z);
            else
                forward<Rule, false, true>(numbers, first, count, trace, eligibility_of(row), update, x, z);
        }
    }
    for (Size row = from; row < to; row++) {
        Lifetime own{network, row, individual};
        float* z = network.sequences.post + own.place(time + 1) * sizes.lanes;
        for (Size o = 0; o < sizes.lanes; o += LANES) store(z + o, settled(hyperbolic_tangent(load(z + o))));
        if (network.parameters.head) well = read_out(own, time, choice) && well;
    }
    return well;
}

template <class Rule>
bool step(const Network& network, Size time, Choice choice) {
    const Sizes& sizes = network.sizes;
    Size bytes = sizes.units * sizes.lanes * sizeof(float) * (Rule::TRACED ? 2 : 1) * sizes.lifetimes;
    Size groups = (bytes + GROUP - 1) / GROUP, individuals = sizes.individuals;
    if (groups > sizes.lifetimes) groups = sizes.lifetimes;
    bool well = true;
    // There and back: what was touched last is still in the cache.
    for (Size piece = 0; piece < individuals * groups; piece++) {
        Size place = time % 2 ? individuals * groups - 1 - piece : piece;
        Size individual = place / groups, group = place % groups, first = individual * sizes.lifetimes;
        Size from = first + group * sizes.lifetimes / groups, to = first + (group + 1) * sizes.lifetimes / groups;
        well = step_rows<Rule>(network, numbers_of(network, individual), individual, from, to, time, choice) && well;
    }
    return well;
}

template <class Rule>
void settle(const Network& network, Size time) {
    Size matrix = network.sizes.units * network.sizes.lanes;
    for (Size row = 0; row < network.sizes.individuals * network.sizes.lifetimes; row++) {
        Lifetime own{network, row, row / network.sizes.lifetimes};
        if (own.flags(time) & UPDATES) prepare_update(own, time, nullptr);
        begin<Rule>(numbers_of(network, own.individual), update_into(own, time), network.state.trace + row * matrix,
                    network.state.eligibility + (Rule::TRACED ? row * matrix : 0));
    }
}

// --- backward --------------------------------------------------------------------------------------------------------

// Trace and eligibility of one lifetime.
struct Pair {
    float *trace, *eligibility;
    Pair after(Size floats) const { return {trace + floats, eligibility ? eligibility + floats : nullptr}; }
};

// Rows [row, row + ROWS) go through `count` updates in registers; every so often they are stored, one matrix further.
// RAW: after each, and the trace as it is before its clip and resets.
template <class Rule, bool RAW, int ROWS, int NB>
PLASTIC_INLINE void roll_tile(const Numbers& numbers, Size row, Size column, const Pair& from, const Pair& to,
                              const Update* updates, Size count, Size every) {
    V F[ROWS][NB], E[ROWS][NB];
    Size matrix = numbers.units * numbers.lanes;
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < NB; v++) {
            Size place = (row + i) * numbers.lanes + column + LANES * v;
            F[i][v] = load(from.trace + place);
            E[i][v] = Rule::TRACED ? load(from.eligibility + place) : zero();
        }
    Size done = 0, stored = 0;
    for (Size t = 0; t < count; t++) {
        const Update& update = updates[t];
        if (update.flags & UPDATES) {
            typename Rule::Columns columns[NB];
            if constexpr (Rule::SIMPLE)
                for (int v = 0; v < NB; v++) columns[v] = columns_of<Rule>(numbers, update, column + LANES * v);
            for (int i = 0; i < ROWS; i++) {
                V pre = all(update.pre[row + i]), unused;
                for (int v = 0; v < NB; v++) {
                    if constexpr (!Rule::SIMPLE)
                        columns[v] = columns_at<Rule>(numbers, update, row + i, column + LANES * v, unused);
                    V raw = Rule::advance(F[i][v], E[i][v], pre, columns[v], numbers.clip);
                    if constexpr (RAW)
                        store(to.trace + t * matrix + (row + i) * numbers.lanes + column + LANES * v, raw);
                }
            }
        } else if constexpr (RAW) {
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < NB; v++)
                    store(to.trace + t * matrix + (row + i) * numbers.lanes + column + LANES * v, F[i][v]);
        }
        if (update.flags & (RESETS_TRACE | RESETS_ELIGIBILITY))
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < NB; v++) {
                    if (update.flags & RESETS_TRACE) F[i][v] = zero();
                    if (update.flags & RESETS_ELIGIBILITY) E[i][v] = zero();
                }
        if (++done == every) {
            done = 0;
            for (int i = 0; i < ROWS; i++)
                for (int v = 0; v < NB; v++) {
                    Size place = stored * matrix + (row + i) * numbers.lanes + column + LANES * v;
                    if constexpr (!RAW) store(to.trace + place, F[i][v]);
                    if constexpr (Rule::TRACED) store(to.eligibility + place, E[i][v]);
                }
            stored++;
        }
    }
}

template <class Rule, bool RAW>
void roll(const Numbers& numbers, const Pair& from, const Pair& to, const Update* updates, Size count, Size every) {
    constexpr int MOST = !Rule::SIMPLE ? 1 : Rule::TRACED ? TRACED_ROLL_BLOCK : ROLL_BLOCK;
    blocks<MOST>(numbers.lanes, [&](auto number, Size column) __attribute__((always_inline)) {
        constexpr int NB = decltype(number)::value, ROWS = Rule::TRACED || !Rule::SIMPLE ? TRACED_ROLL_ROWS : ROLL_ROWS;
        Size row = 0;
        for (; row + ROWS <= numbers.units; row += ROWS)
            roll_tile<Rule, RAW, ROWS, NB>(numbers, row, column, from, to, updates, count, every);
        for (; row < numbers.units; row++)
            roll_tile<Rule, RAW, 1, NB>(numbers, row, column, from, to, updates, count, every);
    });
}

// What one pass of the backward loop reads and writes of a lifetime.
struct Pass {
    const float *trace;        // before the update, or after it and before its clip where the rule LOOKS_AHEAD; what the
                               // product used where there is no update
    const float *eligibility;  // before the update
    const float* x;                    // of the product
    const float* d_total;              // by z
    float *d_trace, *d_eligibility;    // by what is after the update, and then by what is before it
    float *alpha, *gate, *keep, *rate;  // gradients of the individual's numbers, or of columns
    Size alpha_step, gate_step, keep_step, rate_step;
    float *product_sums, *update_sums;  // (I, 16): by x of the product, by x of the update
    float* columns;                     // by G y of a simple rule that is not traced, else by y; written
    float* amount;                      // sixteen partial sums: by the amount of a gate of each synapse
};

PLASTIC_INLINE void add_to(float* to, V a) { store(to, load(to) + a); }

template <class Rule, bool UPDATE, bool PRODUCT, int NB>
PLASTIC_INLINE void backward_block(const Numbers& numbers, const Update& update, const Pass& pass, Size column) {
    V d_total[NB], of_columns[NB], of_gate[NB], of_rate[NB];
    typename Rule::Columns columns[NB];
    for (int v = 0; v < NB; v++) {
        if constexpr (PRODUCT) d_total[v] = load(pass.d_total + column + LANES * v);
        if constexpr (UPDATE && Rule::SIMPLE) columns[v] = columns_of<Rule>(numbers, update, column + LANES * v);
        of_columns[v] = of_gate[v] = of_rate[v] = zero();
    }
    for (Size i = 0; i < numbers.units; i++) {
        V input = PRODUCT ? all(pass.x[i]) : zero();
        V pre = UPDATE ? all(update.pre[i]) : zero();
        Size place = i * numbers.lanes + column;
        const float* w = numbers.weight.at(i) + column;
        const float* alpha = numbers.alpha.at(i) + column;
        float* d_alpha = pass.alpha + i * pass.alpha_step + column;
        V by_input = column ? load(pass.product_sums + LANES * i) : zero();
        V by_pre = column ? load(pass.update_sums + LANES * i) : zero();
#pragma GCC unroll 8
        for (int v = 0; v < NB; v++) {
            Size at = place + LANES * v;
            V F = load(pass.trace + at), before = F, raw = F;
            V E = UPDATE && Rule::TRACED ? load(pass.eligibility + at) : zero(), E_before = E, plain_gate;
            if constexpr (UPDATE && Rule::LOOKS_AHEAD) {
                F = clipped(raw, all(numbers.clip));
            } else if constexpr (UPDATE) {
                if constexpr (!Rule::SIMPLE)
                    columns[v] = columns_at<Rule>(numbers, update, i, column + LANES * v, plain_gate);
                raw = Rule::advance(F, E, pre, columns[v], numbers.clip);
            }
            V d = load(pass.d_trace + at);
            if constexpr (PRODUCT) {
                V gain = load(alpha + LANES * v), push = input * d_total[v];
                add_to(d_alpha + LANES * v, push * F);
                by_input = by_input + d_total[v] * (gain * F + load(w + LANES * v));
                d = d + push * gain;
            }
            if constexpr (UPDATE) {
                d = where_equal(F, raw, d);  // the gradient passes at the bound
                const typename Rule::Columns& c = columns[v];
                if constexpr (Rule::SIMPLE) {
                    if constexpr (Rule::TRACED) {
                        V f = load(pass.d_eligibility + at);
                        of_gate[v] = of_gate[v] + d * E_before;
                        by_pre = by_pre + f * c.rated;
                        of_columns[v] = of_columns[v] + f * pre;
                        of_rate[v] = of_rate[v] + f * E_before;
                        store(pass.d_eligibility + at, settled(c.kept * f + c.g * d));
                    } else {
                        of_columns[v] = of_columns[v] + d * pre;
                        by_pre = by_pre + d * c.g;
                    }
                    if constexpr (Rule::DECAYS) {
                        add_to(pass.keep + column + LANES * v, d * before);
                        d = settled(c.keep * d);
                    }
                } else {
                    V D = Rule::change(before, pre, c.y), source = Rule::TRACED ? E_before : D, d_gated = d;
                    if constexpr (Rule::SOFT) {
                        V A = c.gate * source;
                        V slope = where_less(zero(), A, before, where_less(A, zero(), zero() - before, zero()));
                        d_gated = d - d * slope;
                        d = d - d * magnitude(A);
                    } else {
                        add_to(pass.keep + i * pass.keep_step + column + LANES * v, d * before);
                        d = settled(c.keep * d);
                    }
                    V by_gate = d_gated * source, d_change = c.gate * d_gated;
                    add_to(pass.gate + i * pass.gate_step + column + LANES * v, all(update.amount) * by_gate);
                    if (numbers.gate.data) add_to(pass.amount, by_gate * plain_gate);
                    if constexpr (Rule::TRACED) {
                        V f = load(pass.d_eligibility + at), d_source = d_change;
                        add_to(pass.rate + i * pass.rate_step + column + LANES * v, f * (D - E_before));
                        d_change = c.rate * f;
                        store(pass.d_eligibility + at, settled((all(1.0f) - c.rate) * f + d_source));
                    }
                    if constexpr (Rule::OJA) {
                        V shrunk = c.y * before;
                        of_columns[v] = of_columns[v] + d_change * ((pre - shrunk) - shrunk);
                        d = d - d_change * (c.y * c.y);
                    } else {
                        of_columns[v] = of_columns[v] + d_change * pre;
                    }
                    by_pre = by_pre + d_change * c.y;
                }
            }
            store(pass.d_trace + at, d);
        }
        if constexpr (PRODUCT) store(pass.product_sums + LANES * i, by_input);
        if constexpr (UPDATE) store(pass.update_sums + LANES * i, by_pre);
    }
    if constexpr (UPDATE)
        for (int v = 0; v < NB; v++) {
            store(pass.columns + column + LANES * v, of_columns[v]);
            if constexpr (Rule::SIMPLE && Rule::TRACED) {
                store(pass.gate + column + LANES * v, of_gate[v]);
                // By r: of E' = (1 - r) E + r D.
                V of_change = of_columns[v] * load(update.post + column + LANES * v);
                add_to(pass.rate + column + LANES * v, of_change - of_rate[v]);
            }
        }
}

template <class Rule, bool UPDATE, bool PRODUCT>
void backward_pass(const Numbers& numbers, const Update& update, const Pass& pass) {
    constexpr int MOST = !(Rule::SIMPLE && UPDATE && PRODUCT) ? 1 : Rule::TRACED ? TRACED_BLOCK : BACKWARD_BLOCK;
    blocks<MOST>(numbers.lanes, [&](auto number, Size column) __attribute__((always_inline)) {
        backward_block<Rule, UPDATE, PRODUCT, decltype(number)::value>(numbers, update, pass, column);
    });
}

// The sums of rows of sixteen, (S); rows beyond `units` are zero.
void reduce(const float* rows, Size units, Size lanes, float* to) {
    Size i = 0;
    for (; i + 4 <= units; i += 4) *reinterpret_cast<LooseQuad*>(to + i) = sums_of_four(rows + LANES * i);
    if (i < units) {
        float last[4 * LANES], found[4];
        clear(last, 4 * LANES);
        copy(last, rows + LANES * i, LANES * (units - i));
        *reinterpret_cast<LooseQuad*>(found) = sums_of_four(last);
        copy(to + i, found, units - i);
    }
    clear(to + units, lanes - units);
}

// Hands out pieces of the workspace, each beginning at a multiple of sixteen floats.
struct Arena {
    float* from;
    Size used;
    float* take(Size floats) {
        float* piece = from ? from + used : nullptr;
        used += (floats + LANES - 1) / LANES * LANES;
        return piece;
    }
};

struct Workspace {
    Update* updates;
    float *checkpoints, *segment;  // of traces, and where traced of eligibilities after them
    float *none;                   // a matrix of zeros
    float *d_trace, *d_eligibility;
    float *product_sums, *update_sums;
    float *by_x, *by_pre, *later_pre, *columns, *gate, *d_post, *amount;
    Size floats;

    Workspace(const Network& network, Size spacing, float* memory) {
        const Sizes& sizes = network.sizes;
        Size matrix = sizes.units * sizes.lanes, pair = network.rule.traced ? 2 * matrix : matrix;
        Arena arena{memory, 0};
        updates = reinterpret_cast<Update*>(arena.take((sizes.steps + 1) * sizeof(Update) / sizeof(float)));
        checkpoints = arena.take(pair * (sizes.steps / spacing));
        segment = arena.take(pair * spacing);
        none = arena.take(matrix);
        d_trace = arena.take(matrix);
        d_eligibility = arena.take(matrix);
        product_sums = arena.take(LANES * sizes.units);
        update_sums = arena.take(LANES * sizes.units);
        by_x = arena.take(sizes.lanes);
        by_pre = arena.take(sizes.lanes);
        later_pre = arena.take(sizes.lanes);
        columns = arena.take(sizes.lanes);
        gate = arena.take(sizes.lanes);
        d_post = arena.take(sizes.lanes);
        amount = arena.take(LANES);
        floats = arena.used;
    }
};

Size workspace(const Network& network, Size spacing) { return Workspace(network, spacing, nullptr).floats; }

// The chain from the gains of the update into step `time` to signals, their weights and y.
void gain_backward(const Lifetime& own, const Gradients& gradients, Size time, const float* by_gain, float* by_post) {
    const Network& network = own.network;
    Size lanes = network.sizes.lanes, count = network.sizes.signals;
    const float* signal = network.sequences.signal + own.place(time) * count;
    const float* y = own.post(time);
    float* offset = gradients.offset + own.individual * lanes;
    for (Size o = 0; o < lanes; o += LANES) add_to(offset + o, load(by_gain + o));
    for (Size k = 0; k < count; k++) {
        Size row = (own.individual * count + k) * lanes;
        V by_signal = zero();
        for (Size o = 0; o < lanes; o += LANES) {
            V by = load(by_gain + o);
            add_to(gradients.fan + row + o, by * all(signal[k]));
            by_signal = by_signal + by * load(network.parameters.fan + row + o);
        }
        float total = sum(by_signal);
        if (k || !network.rule.computes_signal) {
            gradients.signal[own.place(time) * count + k] += total;
            continue;
        }
        total = total * (1.0f - signal[k] * signal[k]);
        gradients.modulator_bias[own.individual] += total;
        const float* weight = network.parameters.modulator + own.individual * lanes;
        float* by_weight = gradients.modulator + own.individual * lanes;
        for (Size o = 0; o < lanes; o += LANES) {
            add_to(by_weight + o, all(total) * load(y + o));
            add_to(by_post + o, all(total) * load(weight + o));
        }
    }
}

template <class Rule>
void backward_lifetime(const Network& network, const Gradients& gradients, Size spacing, Size row, Workspace& work) {
    const Sizes& sizes = network.sizes;
    Size lanes = sizes.lanes, units = sizes.units, steps = sizes.steps, matrix = units * lanes;
    Lifetime own{network, row, row / sizes.lifetimes};
    Numbers numbers = numbers_of(network, own.individual);
    for (Size t = 0; t <= steps; t++) work.updates[t] = update_into(own, t);
    float* start = network.state.trace ? network.state.trace + row * matrix : work.none;
    float* start_eligibility = network.state.eligibility ? network.state.eligibility + row * matrix : work.none;
    Pair first{start, start_eligibility};
    Pair checkpoints{work.checkpoints, work.checkpoints + matrix * (steps / spacing)};
    Pair segment{work.segment, work.segment + matrix * spacing};
    bool ends = gradients.trace || gradients.eligibility;
    Size last = ends ? steps : steps - 1;  // the last step whose update is gone back through
    if (last >= spacing) roll<Rule, false>(numbers, first, checkpoints, work.updates, last / spacing * spacing, spacing);

    float* d_trace = gradients.trace ? gradients.trace + row * matrix : work.d_trace;
    float* d_eligibility = gradients.eligibility ? gradients.eligibility + row * matrix : work.d_eligibility;
    if (!gradients.trace) clear(d_trace, matrix);
    if (Rule::TRACED && !gradients.eligibility) clear(d_eligibility, matrix);
    bool by_synapse = network.rule.gate_by_synapse;
    auto rows_for = [&](float* gradient, const Matrix& of) {
        return gradient ? gradient + own.individual * of.rows * lanes : nullptr;
    };
    auto step_of = [&](const Matrix& of) { return of.rows > 1 ? lanes : Size(0); };
    const Parameters& parameters = network.parameters;
    Pass pass{};
    pass.d_trace = d_trace;
    pass.d_eligibility = d_eligibility;
    pass.alpha = rows_for(gradients.alpha, parameters.alpha);
    pass.alpha_step = step_of(parameters.alpha);
    pass.gate = by_synapse ? rows_for(gradients.gate, parameters.gate) : work.gate;
    pass.gate_step = by_synapse ? step_of(parameters.gate) : 0;
    pass.keep = rows_for(gradients.keep, parameters.keep);
    pass.keep_step = step_of(parameters.keep);
    pass.rate = rows_for(gradients.rate, parameters.rate);
    pass.rate_step = step_of(parameters.rate);
    pass.product_sums = work.product_sums;
    pass.update_sums = work.update_sums;
    pass.columns = work.columns;
    pass.amount = work.amount;

    clear(work.later_pre, lanes);
    Size held = ~Size(0);  // the checkpoint that the segment follows
    Pair base{};
    for (Size t = steps + 1; t-- > 0;) {
        const Update& update = work.updates[t];
        bool product = t < steps, updated = false;
        clear(work.by_x, lanes);
        clear(work.by_pre, lanes);
        if (t <= last) {
            if (t / spacing != held) {
                held = t / spacing;
                base = held ? checkpoints.after((held - 1) * matrix) : first;
                Size count = last - held * spacing < spacing - 1 ? last - held * spacing : spacing - 1;
                if (Rule::LOOKS_AHEAD || count)
                    roll<Rule, Rule::LOOKS_AHEAD>(
                        numbers, base, segment, work.updates + held * spacing, count + Rule::LOOKS_AHEAD, 1);
            }
            Size ahead = t - held * spacing;
            Pair before = ahead ? segment.after((ahead - 1) * matrix) : base;
            const float* around = Rule::LOOKS_AHEAD ? segment.trace + ahead * matrix : before.trace;
            pass.trace = around;
            pass.eligibility = before.eligibility;
            pass.x = product ? presynaptic(own, t) : zeros();
            pass.d_total = product ? gradients.total + own.place(t) * lanes : zeros();
            if (!by_synapse) clear(work.gate, lanes);
            if (by_synapse) clear(work.amount, LANES);
            bool resets_eligibility = !Rule::TRACED || (update.flags & RESETS_ELIGIBILITY);
            updated = update.flags & UPDATES;
            // What a reset wipes out has no gradient.
            if (Rule::TRACED && resets_eligibility) clear(d_eligibility, matrix);
            if (update.flags & RESETS_TRACE) {
                pass.trace = work.none;
                if (product) backward_pass<Rule, false, true>(numbers, update, pass);
                pass.trace = around;
                clear(d_trace, matrix);
                updated = updated && !resets_eligibility;
                if (updated) backward_pass<Rule, true, false>(numbers, update, pass);
            } else if (updated && product) {
                backward_pass<Rule, true, true>(numbers, update, pass);
            } else if (updated) {
                backward_pass<Rule, true, false>(numbers, update, pass);
            } else if (product) {
                backward_pass<Rule, false, true>(numbers, update, pass);
            }
            if (product) reduce(work.product_sums, units, lanes, work.by_x);
            if (updated) reduce(work.update_sums, units, lanes, work.by_pre);
        }
        const float* y = own.post(t);
        float* d_post = work.d_post;
        clear(d_post, lanes);
        if (t && gradients.post) copy(d_post, gradients.post + own.place(t - 1) * units, units);
        if (!(update.flags & RESETS_ACTIVITY))
            for (Size o = 0; o < lanes; o += LANES)
                add_to(d_post + o, load(work.by_x + o) + load(work.later_pre + o));
        if (updated) {
            const float* signal = network.sequences.signal + own.place(t) * sizes.signals;
            for (Size o = 0; o < lanes; o += LANES) {
                V by = load(work.columns + o);
                if (Rule::SIMPLE && !Rule::TRACED) {
                    store(work.gate + o, by * load(update.post + o));
                    by = by * gain_of(network, own.individual, signal, o);
                } else if (Rule::SIMPLE) {
                    by = by * load(numbers.rate.data + o);
                }
                add_to(d_post + o, by);
                if (network.rule.shifted) {
                    Size row = own.individual * lanes + o;
                    store(gradients.shift_post + row, load(gradients.shift_post + row) - by);
                    store(gradients.shift_pre + row, load(gradients.shift_pre + row) - load(work.by_pre + o));
                }
            }
            if (!by_synapse)
                gain_backward(own, gradients, t, work.gate, d_post);
            else if (sizes.signals)
                gradients.signal[own.place(t) * sizes.signals] += sum(load(work.amount));
        }
        if (t) {
            float* total = gradients.total + own.place(t - 1) * lanes;
            for (Size o = 0; o < lanes; o += LANES) {
                V of = load(y + o);
                store(total + o, load(d_post + o) * (all(1.0f) - of * of));
            }
        } else {
            if (gradients.activity) copy(gradients.activity + row * lanes, d_post, lanes);
            if (gradients.presynaptic) copy(gradients.presynaptic + row * lanes, work.by_pre, lanes);
        }
        copy(work.later_pre, work.by_pre, lanes);
    }
}

template <class Rule>
void backward(const Network& network, const Gradients& gradients, Size spacing, float* memory) {
    Workspace work(network, spacing, memory);
    clear(work.none, network.sizes.units * network.sizes.lanes);
    for (Size row = 0; row < network.sizes.individuals * network.sizes.lifetimes; row++)
        backward_lifetime<Rule>(network, gradients, spacing, row, work);
}

// --- which rule ------------------------------------------------------------------------------------------------------

template <class Run>
PLASTIC_INLINE void by_rule(const Rule& rule, Run run) {
    if (rule.simple) {
        if (rule.traced) run(Hebb<true, false>{});
        else if (rule.decays) run(Hebb<false, true>{});
        else run(Hebb<false, false>{});
        return;
    }
    switch (rule.oja * 4 + rule.traced * 2 + rule.soft) {
        case 0: run(General<false, false, false>{}); break;
        case 1: run(General<false, false, true>{}); break;
        case 2: run(General<false, true, false>{}); break;
        case 3: run(General<false, true, true>{}); break;
        case 4: run(General<true, false, false>{}); break;
        case 5: run(General<true, false, true>{}); break;
        case 6: run(General<true, true, false>{}); break;
        default: run(General<true, true, true>{}); break;
    }
}

bool any_step(const Network& network, Size time, Choice choice) {
    bool well = true;
    by_rule(network.rule, [&](auto rule) { well = step<decltype(rule)>(network, time, choice); });
    return well;
}
void any_settle(const Network& network, Size time) {
    by_rule(network.rule, [&](auto rule) { settle<decltype(rule)>(network, time); });
}
void any_backward(const Network& network, const Gradients& gradients, Size spacing, float* memory) {
    by_rule(network.rule, [&](auto rule) { backward<decltype(rule)>(network, gradients, spacing, memory); });
}
void many_tanh(const float* from, float* to, Size count) {
    for (Size o = 0; o < count; o += LANES) store(to + o, hyperbolic_tangent(load(from + o)));
}

#define PLASTIC_TEXT(x) #x
#define PLASTIC_NAME(x) PLASTIC_TEXT(x)

}  // namespace

bool table_step(const RuleTable&, Choice choice);
std::size_t table_workspace(const RuleTable&);

extern const Level level;
const Level level{PLASTIC_NAME(PLASTIC_LEVEL), any_step,   any_settle,     any_backward, workspace,
                  many_tanh,                   table_step, table_workspace};

}  // namespace plastic::PLASTIC_LEVEL
