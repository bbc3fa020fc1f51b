// A step of rule-table networks in one level of instructions; `rule_table.h` says what of, in which layout.
//
// Where all individuals have the same weights onto hidden units and see the same, as long as only what they chose
// differs, the hidden activity is computed once for all of them.
#include "rule_table.h"

#include "lanes.h"
#include "level.h"

namespace plastic::PLASTIC_LEVEL {
namespace {

typedef std::size_t Size;

constexpr float TINY = 1e-12f;
constexpr int ABREAST = 4;  // tiles of a product, sums of a row: additions wait for each other else

struct Work {
    float *inputs, *drive, *first, *first_code, *total, *kept, *code, *arriving, *keys, *changes, *lookup, *sums, *dots;
    float *columns, *probability;
};

// Lays the workspace out from `memory`, and returns how many floats it has.
Size lay_out(const RuleTable& own, float* memory, Work& work) {
    const TableSizes& sizes = own.sizes;
    Size S = sizes.lanes, used = 0;
    auto take = [&](float*& place, Size count) {
        place = memory ? memory + used : nullptr;
        used += (count + LANES - 1) / LANES * LANES;
    };
    take(work.inputs, sizes.inputs);
    float** vectors[] = {&work.drive, &work.first, &work.first_code, &work.total,
                         &work.kept,  &work.code,  &work.arriving,   &work.keys};
    for (float** place : vectors) take(*place, S);
    take(work.changes, own.conditions() * S);
    take(work.lookup, own.codes() * S);
    take(work.sums, (sizes.inputs > S ? sizes.inputs : S) * LANES);
    take(work.dots, sizes.outputs * LANES);
    take(work.columns, sizes.outputs);
    take(work.probability, sizes.outputs);
    return used;
}

PLASTIC_INLINE float first_lane(V a) {
    float lane[LANES];
    store(lane, a);
    return lane[0];
}
// By the sum of squares, length and 1 / length: as the reference keeps the ones, or their squares, from 0.
PLASTIC_INLINE V length_of(V squares) { return greater(all(TINY), root(squares)); }
PLASTIC_INLINE V by_square(V squares) { return all(1.0f) / root(greater(all(TINY * TINY), squares)); }

// --- weights onto hidden units ---------------------------------------------------------------------------------------

// How the weights of a layer of tiles change.
struct Change {
    const float* lookup;    // by post unit, (1 or C, S)
    const float* code;      // of pre units: rows of the lookup; null: the first
    const float* activity;  // of pre units, or null
    const float* factor;    // one number, or null
    bool multiplicative, diagonal;
    int normalise;
};

// z of `tiles` tiles.
template <int N>
PLASTIC_INLINE void products(const float* weights, const float* x, Size count, float* z) {
    V total[N];
    for (int n = 0; n < N; n++) total[n] = zero();
    for (Size i = 0; i < count; i++) {
        V input = all(x[i]);
        for (int n = 0; n < N; n++) total[n] = total[n] + input * load(weights + (n * count + i) * LANES);
    }
    for (int n = 0; n < N; n++) store(z + n * LANES, total[n]);
}

void product(const float* weights, const float* x, Size count, Size lanes, float* z) {
    Size tile = 0, tiles = lanes / LANES;
    for (; tile + ABREAST <= tiles; tile += ABREAST)
        products<ABREAST>(weights + tile * count * LANES, x, count, z + tile * LANES);
    for (; tile < tiles; tile++) products<1>(weights + tile * count * LANES, x, count, z + tile * LANES);
}

// New weights of one tile, before they are scaled; returns sums of squares over pre units.
template <bool PRODUCT>
PLASTIC_INLINE V changed_tile(float* weights, const Change& change, Size count, Size lanes, Size tile, float* sums,
                              const float* x, V& z) {
    V squares = zero(), factor = all(change.factor ? *change.factor : 1.0f);
    for (Size i = 0; i < count; i++) {
        V w = load(weights + i * LANES);
        Size row = change.code ? Size(change.code[i]) : 0;
        V d = load(change.lookup + row * lanes + tile * LANES);
        if (change.activity) d = d * all(change.activity[i]);
        if (change.factor) d = d * factor;
        if (change.multiplicative) d = w * d;
        w = w + d;
        if (change.diagonal && i / LANES == tile) {
            store(weights + i * LANES, w);
            weights[i * LANES + i % LANES] = 0.0f;
            w = load(weights + i * LANES);
        }
        store(weights + i * LANES, w);
        if (sums) store(sums + i * LANES, load(sums + i * LANES) + w * w);
        if constexpr (PRODUCT) z = z + w * all(x[i]);
        else squares = squares + w * w;
    }
    return squares;
}

// Changes a layer's weights and takes the product by the new ones.
void changed_product(float* weights, const Change& change, const float* x, Size count, Size lanes, float* z,
                     float* sums) {
    Size tiles = lanes / LANES;
    if (change.normalise == OUTGOING) clear(sums, count * LANES);
    for (Size tile = 0; tile < tiles; tile++) {
        float* own = weights + tile * count * LANES;
        V total = zero();
        if (change.normalise == UNSCALED) {
            changed_tile<true>(own, change, count, lanes, tile, nullptr, x, total);
        } else if (change.normalise == INCOMING) {
            V length = length_of(changed_tile<false>(own, change, count, lanes, tile, nullptr, x, total));
            for (Size i = 0; i < count; i++) {
                // Divided, so that the one weight of a unit is exactly 1 or -1, and units can be equal.
                V w = load(own + i * LANES) / length;
                store(own + i * LANES, w);
                total = total + w * all(x[i]);
            }
        } else {
            changed_tile<false>(own, change, count, lanes, tile, sums, x, total);
        }
        store(z + tile * LANES, total);
    }
    if (change.normalise != OUTGOING) return;
    for (Size i = 0; i < count; i++) store(sums + i * LANES, by_square(all(sum(load(sums + i * LANES)))));
    for (Size tile = 0; tile < tiles; tile++) {
        float* own = weights + tile * count * LANES;
        V total = zero();
        for (Size i = 0; i < count; i++) {
            V w = load(own + i * LANES) * load(sums + i * LANES);
            store(own + i * LANES, w);
            total = total + w * all(x[i]);
        }
        store(z + tile * LANES, total);
    }
}

// --- competition -----------------------------------------------------------------------------------------------------

// How many keys are `from` or more.
Size count_from(const float* keys, Size lanes, std::int32_t from) {
    Integers found[REGISTERS] = {};
    for (Size o = 0; o < lanes; o += LANES) {
        V key = load(keys + o);
        PLASTIC_EACH found[k] -= (Integers)key.part[k] >= (Integers{} + from);
    }
    std::int32_t lane[LANES];
    Size count = 0;
    PLASTIC_EACH __builtin_memcpy(lane + PLASTIC_WIDTH * k, &found[k], sizeof(Integers));
    for (int i = 0; i < LANES; i++) count += Size(lane[i]);
    return count;
}

// Keeps the `cap` largest values, of equal ones those that come first; the others are multiplied by 0. The threshold is
// found by bisection of whole numbers in the order of the values: exact, and as quick whatever they are.
void keep_largest(float* values, Size units, Size lanes, Size cap, float* keys, bool negative) {
    if (cap >= units) return;
    const std::int32_t lowest = (std::int32_t)0x80000000;
    V most = zero();
    for (Size o = 0; o < lanes; o += LANES) {
        V v = load(values + o) + zero();  // -0 is 0
        most = greater(most, v);
        PLASTIC_EACH {
            Integers bits = (Integers)v.part[k];
            v.part[k] = (Floats)(bits ^ ((bits >> 31) & 0x7fffffff));
        }
        store(keys + o, v);
    }
    for (Size i = units; i < lanes; i++) __builtin_memcpy(keys + i, &lowest, sizeof(lowest));
    // The first questions: whether there are enough above 0, and enough within three binary orders of the largest.
    float lane[LANES], largest = 0.0f;
    std::int32_t top;
    store(lane, most);
    for (int i = 0; i < LANES; i++)
        if (!(lane[i] <= largest)) largest = lane[i];
    __builtin_memcpy(&top, &largest, sizeof(top));
    std::int64_t low = lowest, high = 0x7fffffff, middle = 1;
    bool alone = false;
    while (low < high && !alone) {
        Size count = count_from(keys, lanes, std::int32_t(middle));
        if (middle == 1 && count <= cap && !negative) return;  // the others are 0
        alone = count == cap;
        if (count < cap) high = middle - 1;
        else low = middle;
        std::int64_t near = top - (std::int64_t(3) << 23);
        middle = low == 1 && near > 1 && high > near ? near : low + (high - low + 1) / 2;
    }
    Integers least = Integers{} + std::int32_t(low);
    if (alone) {
        for (Size o = 0; o < lanes; o += LANES) {
            V key = load(keys + o), v = load(values + o), lost = v * zero();
            PLASTIC_EACH v.part[k] = (Integers)key.part[k] >= least ? v.part[k] : lost.part[k];
            store(values + o, v);
        }
        return;
    }
    Size room = cap - (low < 0x7fffffff ? count_from(keys, lanes, std::int32_t(low + 1)) : 0);
    for (Size i = 0; i < units; i++) {
        std::int32_t key;
        __builtin_memcpy(&key, keys + i, sizeof(key));
        bool tied = key == low && room;
        if (tied) room--;
        if (key < low || (key == low && !tied)) values[i] *= 0.0f;
    }
}

// Units' outputs by what they add up; and 1 where they are not 0.
void fire(const RuleTable& own, float* total, float* keys) {
    const TableSizes& sizes = own.sizes;
    for (Size o = 0; own.rule.activation != LINEAR && o < sizes.lanes; o += LANES) {
        V v = load(total + o);
        if (own.rule.activation == RELU) {
            v = greater(zero(), v);
        } else if (own.rule.activation == TANH) {
            v = hyperbolic_tangent(v);
        } else {
            V p = all(1.0f) / (all(1.0f) + exponential(zero() - v));
            v = where_less(v, all(-88.75f), zero(), p);
        }
        store(total + o, v);
    }
    for (Size i = sizes.units; i < sizes.lanes; i++) total[i] = 0.0f;
    bool negative = own.rule.activation == LINEAR || own.rule.activation == TANH;
    keep_largest(total, sizes.units, sizes.lanes, Size(own.rule.cap), keys, negative);
}

// code += 2^number where `kept` is not 0.
void add_round(float* code, const float* kept, Size lanes, int number) {
    V bit = all(float(1 << number));
    for (Size o = 0; o < lanes; o += LANES)
        store(code + o, load(code + o) + (bit - where_equal(load(kept + o), zero(), bit)));
}

// --- one lifetime ----------------------------------------------------------------------------------------------------

// What is known at an update.
struct Seen {
    bool happens, rewarded, outcome;
    float factor;
};

bool erred(const RuleTable& own, const float* observation, const float* preference, bool rewarded) {
    if (own.rule.output_table == LABEL_FREE) return !rewarded;
    float right = -__builtin_inff(), wrong = -__builtin_inff();
    for (Size k = 0; k < own.sizes.outputs; k++) {
        float& largest = observation[own.sizes.label + k] > 0.5f ? right : wrong;
        if (!(preference[k] <= largest)) largest = preference[k];
    }
    return right <= wrong;
}

Seen look_back(const RuleTable& own, Size row) {
    const TableRule& rule = own.rule;
    const float* observation = own.observation + row * own.sizes.columns;
    float reward = observation[own.sizes.reward], surprise = 0.0f;
    bool starts = own.starts[row], some = rule.zero_is_none ? reward != 0.0f : true;
    if (starts && rule.reads_reward) own.average[row] = 0.0f;
    Seen seen{!starts && !rule.frozen, false, true, 1.0f};
    if (rule.reads_reward) {
        surprise = reward - own.average[row];
        seen.rewarded = surprise > 0.0f;
        if (seen.happens && some) own.average[row] = own.average[row] + rule.reward_average_rate * surprise;
    }
    if (rule.without_outcome) seen.outcome = some;
    else seen.happens = seen.happens && some;
    if (rule.errors && seen.happens)
        seen.happens = erred(own, observation, own.preference + row * own.sizes.outputs, seen.rewarded);
    seen.factor = surprise < 0.0f ? -surprise : surprise;
    return seen;
}

Size gate_of(const RuleTable& own, const TableLayer& layer, const Seen& seen) {
    if (!seen.outcome) return own.gates(layer) - 1;
    return layer.gated && seen.rewarded ? 1 : 0;
}

// Entries of one row of a table, by the codes of units.
void look_up(const float* entries, const float* code, Size count, Size units, Size lanes, float* found) {
    if (count <= 4) {
        for (Size o = 0; o < lanes; o += LANES) {
            V own = load(code + o), entry = all(entries[0]);
            for (Size c = 1; c < count; c++) entry = where_less(all(float(c) - 0.5f), own, all(entries[c]), entry);
            store(found + o, entry);
        }
    } else {
        for (Size i = 0; i < units; i++) found[i] = entries[Size(code[i])];
    }
    for (Size i = units; i < lanes; i++) found[i] = 0.0f;
}

Change change_of(const RuleTable& own, const TableLayer& layer, const Seen& seen, const Work& work) {
    return {work.lookup, nullptr, nullptr, own.rule.surprise ? &seen.factor : nullptr, own.rule.multiplicative != 0,
            false,       layer.normalise};
}

void drive(const RuleTable& own, Size row, Size individual, const Seen& seen, const Work& work) {
    const TableSizes& sizes = own.sizes;
    Size place = own.rule.input.shared ? row % sizes.lifetimes : row;
    float* weights = own.input_weight + place * sizes.inputs * sizes.lanes;
    const float* code = own.code + row * sizes.lanes;
    if (!own.rule.input.plastic || !seen.happens) {
        product(weights, work.inputs, sizes.inputs, sizes.lanes, work.drive);
        return;
    }
    const TableLayer& layer = own.rule.input;
    Size gate = individual * own.gates(layer) + gate_of(own, layer, seen);
    look_up(own.input_rows + gate * own.codes(), code, own.codes(), sizes.units, sizes.lanes, work.lookup);
    Change change = change_of(own, layer, seen, work);
    if (layer.presynaptic) change.activity = own.seen + row * sizes.inputs;
    changed_product(weights, change, work.inputs, sizes.inputs, sizes.lanes, work.drive, work.sums);
}

// What arrives by the weights among hidden units, into `work.total`.
void recur(const RuleTable& own, Size row, Size individual, const Seen& seen, const Work& work, bool changes) {
    const TableSizes& sizes = own.sizes;
    const TableLayer& layer = own.rule.hidden;
    Size place = layer.shared ? row % sizes.lifetimes : row, C = own.codes();
    float* weights = own.hidden_weight + place * sizes.units * sizes.lanes;
    const float* code = own.code + row * sizes.lanes;
    if (!changes || !layer.plastic || !seen.happens) {
        product(weights, work.arriving, sizes.units, sizes.lanes, work.total);
        return;
    }
    const float* table = own.hidden_rows + (individual * own.gates(layer) + gate_of(own, layer, seen)) * C * C;
    for (Size pre = 0; pre < C; pre++)
        look_up(table + pre * C, code, C, sizes.units, sizes.lanes, work.lookup + pre * sizes.lanes);
    Change change = change_of(own, layer, seen, work);
    change.code = code;
    change.diagonal = true;
    if (layer.presynaptic) change.activity = own.arriving + row * sizes.lanes;
    changed_product(weights, change, work.arriving, sizes.units, sizes.lanes, work.total, work.sums);
}

// Activity in the first round, from `work.inputs`.
void begin_rounds(const RuleTable& own, const Work& work) {
    Size lanes = own.sizes.lanes;
    copy(work.first, work.drive, lanes);
    fire(own, work.first, work.keys);
    clear(work.first_code, lanes);
    add_round(work.first_code, work.first, lanes, 0);
}

void further_rounds(const RuleTable& own, Size row, Size individual, const Seen& seen, const Work& work) {
    Size lanes = own.sizes.lanes;
    copy(work.kept, work.first, lanes);
    copy(work.code, work.first_code, lanes);
    for (int number = 1; number <= own.rule.rounds; number++) {
        for (Size o = 0; o < lanes; o += LANES) {
            V kept = load(work.kept + o);
            store(work.arriving + o, own.rule.joosten ? load(work.first + o) + kept : kept);
        }
        recur(own, row, individual, seen, work, number == 1);
        if (!own.rule.joosten)
            for (Size o = 0; o < lanes; o += LANES) store(work.total + o, load(work.total + o) + load(work.drive + o));
        fire(own, work.total, work.keys);
        copy(work.kept, work.total, lanes);
        add_round(work.code, work.kept, lanes, number);
    }
}

// --- outputs ---------------------------------------------------------------------------------------------------------

// The sum of `each(v)` over vectors [0, count), in an order of its own.
template <class Each>
PLASTIC_INLINE float sum_of(Size count, Each each) {
    V total[ABREAST];
    for (int n = 0; n < ABREAST; n++) total[n] = zero();
    Size v = 0;
    for (; v + ABREAST <= count; v += ABREAST)
        for (int n = 0; n < ABREAST; n++) total[n] = total[n] + each(v + n);
    for (; v < count; v++) total[0] = total[0] + each(v);
    return sum((total[0] + total[1]) + (total[2] + total[3]));
}

// A whole number from 0, as one-hot columns have them.
PLASTIC_INLINE int whole(float x) { return x >= 1.0f && x < 16.0f ? int(x) : 0; }

// Changes by each column of the output table that some output has, and which column that is, in `work.columns`.
void output_changes(const RuleTable& own, Size row, Size individual, const Seen& seen, const Work& work) {
    const TableSizes& sizes = own.sizes;
    const TableRule& rule = own.rule;
    const float* observation = own.observation + row * sizes.columns;
    const float* code = own.code + row * sizes.lanes;
    Size C = own.codes(), conditions = own.conditions();
    unsigned known = 0;
    for (Size k = 0; k < sizes.outputs; k++) {
        int chosen = whole(observation[sizes.action + k]), column;
        if (rule.output_table == LABEL_FREE) column = seen.outcome ? seen.rewarded + 2 * chosen : 4 + chosen;
        else column = whole(observation[sizes.label + k]) + (rule.output_table == SUPERVISED ? 0 : 2 * chosen);
        column = column < int(conditions) ? column : int(conditions) - 1;
        work.columns[k] = float(column);
        if (known >> column & 1) continue;
        known |= 1u << column;
        const float* entries = own.output_rows + (individual * conditions + Size(column)) * C;
        float* found = work.changes + Size(column) * sizes.lanes;
        if (C == 2) {
            V silent = all(entries[0]), fired = all(entries[1] - entries[0]);
            for (Size o = 0; o < sizes.lanes; o += LANES) store(found + o, silent + fired * load(code + o));
            for (Size i = sizes.units; i < sizes.lanes; i++) found[i] = 0.0f;
        } else {
            look_up(entries, code, C, sizes.units, sizes.lanes, found);
        }
        if (!rule.output.presynaptic && !rule.surprise) continue;
        const float* kept = own.kept + row * sizes.lanes;
        for (Size o = 0; o < sizes.lanes; o += LANES) {
            V d = load(found + o);
            if (rule.output.presynaptic) d = d * load(kept + o);
            if (rule.surprise) d = d * all(seen.factor);
            store(found + o, d);
        }
    }
}

template <bool MULTIPLICATIVE>
PLASTIC_INLINE V changed(const float* weight, const float* change) {
    V w = load(weight), d = load(change);
    return w + (MULTIPLICATIVE ? w * d : d);
}

template <bool MULTIPLICATIVE>
void changed_outputs(const RuleTable& own, float* weights, const float* kept, float* outputs, const Work& work) {
    Size S = own.sizes.lanes, K = own.sizes.outputs;
    const float* columns = work.columns;
    if (own.rule.output.normalise != OUTGOING) {
        for (Size k = 0; k < K; k++) {
            float* w = weights + k * S;
            const float* d = work.changes + Size(columns[k]) * S;
            float squares = sum_of(S / LANES, [&](Size v) __attribute__((always_inline)) {
                V fresh = changed<MULTIPLICATIVE>(w + v * LANES, d + v * LANES);
                store(w + v * LANES, fresh);
                return fresh * fresh;
            });
            V scale = own.rule.output.normalise == INCOMING ? all(1.0f) / length_of(all(squares)) : all(1.0f);
            outputs[k] = sum_of(S / LANES, [&](Size v) __attribute__((always_inline)) {
                V scaled = load(w + v * LANES) * scale;
                store(w + v * LANES, scaled);
                return scaled * load(kept + v * LANES);
            });
        }
        return;
    }
    float* totals = work.dots;
    for (Size k = 0; k < K; k++) store(totals + k * LANES, zero());
    for (Size o = 0; o < S; o += LANES) {
        V squares = zero();
        for (Size k = 0; k < K; k++) {
            V fresh = changed<MULTIPLICATIVE>(weights + k * S + o, work.changes + Size(columns[k]) * S + o);
            store(weights + k * S + o, fresh);
            squares = squares + fresh * fresh;
        }
        V scale = by_square(squares), activity = load(kept + o);
        for (Size k = 0; k < K; k++) {
            V scaled = load(weights + k * S + o) * scale;
            store(weights + k * S + o, scaled);
            store(totals + k * LANES, load(totals + k * LANES) + scaled * activity);
        }
    }
    for (Size k = 0; k < K; k++) outputs[k] = sum(load(totals + k * LANES));
}

void read_out(const RuleTable& own, Size row, Size individual, const Seen& seen, const float* kept, const Work& work) {
    Size S = own.sizes.lanes, K = own.sizes.outputs;
    float* weights = own.output_weight + row * K * S;
    float* outputs = own.preference + row * K;
    if (own.rule.output.plastic && seen.happens) {
        output_changes(own, row, individual, seen, work);
        if (own.rule.multiplicative) changed_outputs<true>(own, weights, kept, outputs, work);
        else changed_outputs<false>(own, weights, kept, outputs, work);
        return;
    }
    for (Size k = 0; k < K; k++) {
        const float* w = weights + k * S;
        outputs[k] = sum_of(S / LANES, [&](Size v) __attribute__((always_inline)) {
            return load(w + v * LANES) * load(kept + v * LANES);
        });
    }
}

// Chooses by the probabilities of actions; returns whether all that they follow from is finite.
bool choose(const RuleTable& own, Size row, Size individual, Choice choice, float* p) {
    Size K = own.sizes.outputs;
    const float* outputs = own.preference + row * K;
    const TableRule& rule = own.rule;
    float beta = rule.argmax ? 1.0f : own.beta[individual], largest = outputs[0] * beta;
    bool well = true;
    for (Size k = 0; k < K; k++) {
        p[k] = outputs[k] * beta;
        well = well && p[k] - p[k] == 0.0f;
        if (p[k] > largest) largest = p[k];
    }
    if (choice == OUTPUTS) return well;
    float guided = rule.explores ? own.guided[individual] : 1.0f, uniform = rule.explores ? own.uniform[individual] : 0.0f;
    float total = 0.0f;
    if (rule.argmax) {
        for (Size k = 0; k < K; k++) total += p[k] = p[k] == largest ? 1.0f : 0.0f;
    } else {
        for (Size k = K; k % LANES; k++) p[k] = largest;
        for (Size k = 0; k < K; k += LANES) store(p + k, exponential(load(p + k) - all(largest)));
        for (Size k = 0; k < K; k++) total += p[k];
    }
    float sum = 0.0f;
    for (Size k = 0; k < K; k++) sum += p[k] = p[k] / total * guided + uniform;
    Size chosen = 0;
    if (choice == MOST_PROBABLE && !rule.explores) {
        while (chosen + 1 < K && !(outputs[chosen] * beta == largest)) chosen++;
    } else if (choice == MOST_PROBABLE) {
        for (Size k = 1; k < K; k++)
            if (p[k] > p[chosen]) chosen = k;
    } else {
        float cumulative = 0.0f;
        // Leaving the last one out keeps the choice valid whatever the rounding of the sum.
        for (Size k = 0; k + 1 < K; k++) {
            cumulative += p[k] / sum;
            chosen += cumulative <= own.noise[row];
        }
    }
    own.action[row] = std::int64_t(chosen);
    return well && sum < __builtin_inff();
}

}  // namespace

std::size_t table_workspace(const RuleTable& own) {
    Work work;
    return lay_out(own, nullptr, work);
}

bool table_step(const RuleTable& own, Choice choice) {
    const TableSizes& sizes = own.sizes;
    const TableRule& rule = own.rule;
    Work work;
    lay_out(own, own.workspace, work);
    Size S = sizes.lanes, plain = sizes.inputs - Size(rule.with_one != 0);
    bool well = true;
    for (Size lifetime = 0; lifetime < sizes.lifetimes; lifetime++) {
        const float* before = nullptr;  // what the activity in the workspace was computed from
        for (Size individual = 0; individual < sizes.individuals; individual++) {
            Size row = individual * sizes.lifetimes + lifetime;
            const float* observation = own.observation + row * sizes.columns;
            Seen seen = look_back(own, row);
            bool same = before && rule.input.shared && !__builtin_memcmp(before, observation, plain * sizeof(float));
            if (!same) {
                copy(work.inputs, observation, plain);
                if (rule.with_one) work.inputs[plain] = 1.0f;
                drive(own, row, individual, seen, work);
                begin_rounds(own, work);
                before = observation;
            }
            if (rule.rounds && !(same && rule.hidden.shared)) further_rounds(own, row, individual, seen, work);
            const float* kept = rule.rounds ? work.kept : work.first;
            read_out(own, row, individual, seen, kept, work);
            copy(own.code + row * S, rule.rounds ? work.code : work.first_code, S);
            if (own.seen) copy(own.seen + row * sizes.inputs, work.inputs, sizes.inputs);
            if (own.arriving) copy(own.arriving + row * S, work.arriving, S);
            if (own.kept) copy(own.kept + row * S, kept, S);
            well = choose(own, row, individual, choice, work.probability) && well;
        }
    }
    return well;
}

}  // namespace plastic::PLASTIC_LEVEL
