// Runs the cases of `cases.bin` (see record.py) on every level of instructions, without Python, for the sanitizers:
// each array is an allocation of its own, of exactly its size, so that a step beyond it is found.
//
//     driver cases.bin
//
// Values and gradients are held to the float64 reference; the levels, a population of two that are alike, arrays that
// begin at odd places, and a sequence that is cut in two, to the bytes of the first level. Returns 1 on any difference.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "dispatch.h"

namespace {

using plastic::Level;
using plastic::Network;
using std::size_t;
typedef std::vector<float> Numbers;

constexpr double VALUES = 2e-6, GRADIENTS = 5e-5;  // both relative to the largest of an array, and values to 1

[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(1);
}

// --- cases -----------------------------------------------------------------------------------------------------------

struct Case {
    char name[25] = {};
    std::int32_t seed, units, lifetimes, steps, inputs, outputs, by_trial;
    std::int32_t oja, traced, decays, soft, by_gate, modulated, simple, has_eta, fans_out;
    std::int32_t alpha_by_synapse, eta_by_synapse, rate_by_synapse;
    float clip;
    Numbers expected;

    size_t rows_of(std::int32_t by_synapse) const { return by_synapse ? units : 1; }
    size_t lanes() const { return (size_t(units) + 15) / 16 * 16; }
};
constexpr size_t HEADER = 19;

std::vector<Case> read_cases(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (!file) fail(std::string("cannot open ") + path);
    auto take = [&](void* to, size_t bytes) {
        if (std::fread(to, 1, bytes, file) != bytes) fail("the file of cases ends too early");
    };
    char magic[8];
    std::int32_t count;
    take(magic, 8);
    if (std::memcmp(magic, "PLASTIC1", 8)) fail("not a file of cases");
    take(&count, 4);
    std::vector<Case> cases(count);
    for (Case& one : cases) {
        std::int32_t header[HEADER];
        std::uint32_t numbers;
        take(one.name, 24);
        take(header, sizeof header);
        std::memcpy(&one.seed, header, sizeof header);
        take(&one.clip, 4);
        take(&numbers, 4);
        one.expected.resize(numbers);
        if (numbers) take(one.expected.data(), 4 * numbers);
    }
    std::fclose(file);
    return cases;
}

// As in record.py.
struct Stream {
    std::uint64_t seed, count = 0;

    Numbers draw(float low, float high, size_t size) {
        Numbers drawn(size);
        for (float& one : drawn) {
            std::uint64_t word = (count++ + (seed << 32)) * 0x9E3779B97F4A7C15u + 0x9E3779B97F4A7C15u;
            word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
            word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
            word ^= word >> 31;
            one = low + (high - low) * (float(word >> 40) * 5.9604644775390625e-8f);
        }
        return drawn;
    }
};

// What goes into a case: matrices (.., I, O), without padding.
struct Inputs {
    Numbers weight, alpha, eta, rate, offset, fan, modulator, modulator_bias, input, bias, head, head_bias;
    Numbers observation, noise, activity, trace, eligibility, d_post, d_trace, d_eligibility;
    std::vector<std::uint8_t> flags;

    explicit Inputs(const Case& own) {
        Stream stream{std::uint64_t(own.seed)};
        size_t units = own.units, rows = own.lifetimes, steps = own.steps, matrix = units * units;
        weight = stream.draw(-1, 1, matrix);
        for (float& one : weight) one = one * 0.8f / std::sqrt(float(units));
        alpha = stream.draw(-0.5f, 0.5f, own.rows_of(own.alpha_by_synapse) * units);
        if (own.has_eta) eta = stream.draw(0.1f, 0.6f, own.rows_of(own.eta_by_synapse) * units);
        if (own.traced) rate = stream.draw(0.1f, 0.6f, own.rows_of(own.rate_by_synapse) * units);
        offset.assign(units, 0.0f);
        fan.assign(units, 1.0f);
        if (own.fans_out) {
            offset = stream.draw(-0.2f, 0.2f, units);
            fan = stream.draw(0.5f, 1.5f, units);
        }
        if (own.modulated) {
            modulator = stream.draw(-1, 1, units);
            modulator_bias = stream.draw(-0.3f, 0.3f, 1);
        } else if (!own.by_gate) {
            offset = eta;
        }
        input = stream.draw(-0.6f, 0.6f, own.inputs * units);
        bias = stream.draw(-0.2f, 0.2f, units);
        head = stream.draw(-0.5f, 0.5f, own.outputs * units);
        head_bias = stream.draw(-0.5f, 0.5f, own.outputs);
        observation = stream.draw(-1, 1, steps * rows * own.inputs);
        noise = stream.draw(0, 1, steps * rows);
        Numbers starts = stream.draw(0, 1, steps * rows), trials = stream.draw(0, 1, steps * rows);
        flags.assign((steps + 1) * rows, plastic::UPDATES);
        for (size_t i = 0; i < steps * rows; i++) {
            flags[i] = i < rows ? 0 : plastic::UPDATES;
            if (starts[i] < 0.15f) flags[i] |= plastic::RESETS_TRACE | plastic::RESETS_ELIGIBILITY | plastic::RESETS_ACTIVITY;
            if (trials[i] < 0.3f) flags[i] |= own.by_trial;
        }
        activity = stream.draw(-0.7f, 0.7f, rows * units);
        trace = stream.draw(-0.2f, 0.2f, rows * matrix);
        if (own.traced) eligibility = stream.draw(-0.3f, 0.3f, rows * matrix);
        d_post = stream.draw(-1, 1, steps * rows * units);
        d_trace = stream.draw(-1, 1, rows * matrix);
        if (own.traced) d_eligibility = stream.draw(-1, 1, rows * matrix);
    }
};

// --- arrays ----------------------------------------------------------------------------------------------------------

// `size` elements that end where their allocation ends, and begin `shift` elements after it begins.
template <class Element>
class Array {
public:
    Array() = default;
    Array(size_t size, size_t shift, Element value) : size_(size), shift_(shift) {
        memory_ = static_cast<Element*>(std::malloc((size + shift) * sizeof(Element)));
        if (!memory_) fail("out of memory");
        for (size_t i = 0; i < size; i++) data()[i] = value;
    }
    Array(Array&& other) noexcept { swap(other); }
    Array& operator=(Array&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Array() { std::free(memory_); }
    Element* data() const { return memory_ ? memory_ + shift_ : nullptr; }
    size_t size() const { return size_; }
    Element& operator[](size_t place) const { return data()[place]; }

private:
    Element* memory_ = nullptr;
    size_t size_ = 0, shift_ = 0;

    void swap(Array& other) {
        std::swap(memory_, other.memory_);
        std::swap(size_, other.size_);
        std::swap(shift_, other.shift_);
    }
};

// How a case is run: which steps of it, and in what memory.
struct Way {
    size_t individuals = 1, shift = 0, cut = 0;
};

struct Run {
    const Case& own;
    const Inputs& given;
    Way way;
    size_t units, lanes, rows, steps;  // rows: of one individual
    std::vector<Array<float>> kept;
    Array<std::uint8_t> flags;
    Array<std::int64_t> action;
    Network network{};
    plastic::Gradients gradients{};

    Run(const Case& own, const Inputs& given, Way way)
        : own(own), given(given), way(way), units(own.units), lanes(own.lanes()), rows(own.lifetimes), steps(own.steps) {
        plastic::Rule& rule = network.rule;
        rule.oja = own.oja;
        rule.traced = own.traced;
        rule.decays = own.decays;
        rule.soft = own.soft;
        rule.gate_by_synapse = own.by_gate;
        rule.computes_signal = own.modulated;
        rule.simple = own.simple;
        rule.clip = own.clip;
        plastic::Sizes& sizes = network.sizes;
        sizes.individuals = way.individuals;
        sizes.lifetimes = rows;
        sizes.steps = steps;
        sizes.units = units;
        sizes.lanes = lanes;
        sizes.inputs = own.inputs;
        sizes.signals = own.modulated ? 1 : 0;
        sizes.outputs = own.outputs;
        plastic::Parameters& parameters = network.parameters;
        parameters.weight = matrix(given.weight);
        parameters.alpha = matrix(given.alpha);
        if (own.by_gate) parameters.gate = matrix(given.eta);
        if (!own.simple || own.decays) {
            Numbers keep(units, 1.0f);
            if (own.decays) {
                keep = given.eta;
                for (float& one : keep) one = 1.0f - one;
            }
            parameters.keep = matrix(keep);
        }
        if (own.traced) parameters.rate = matrix(given.rate);
        if (!own.by_gate) parameters.offset = of_individuals(given.offset, units);
        if (own.modulated) {
            parameters.fan = of_individuals(given.fan, units);
            parameters.modulator = of_individuals(given.modulator, units);
            parameters.modulator_bias = of_individuals(given.modulator_bias, 0);
        }
        parameters.input = of_individuals(given.input, units);
        parameters.bias = of_individuals(given.bias, units);
        parameters.head = of_individuals(given.head, units);
        parameters.head_bias = of_individuals(given.head_bias, 0);
        plastic::Sequences& sequences = network.sequences;
        sequences.observation = over_time(given.observation, steps, own.inputs);
        sequences.noise = over_time(given.noise, steps, 1);
        // What is written before it is read begins as NaN.
        sequences.post = fresh((steps + 1) * all_rows() * lanes, NAN);
        if (!own.by_gate) sequences.gated = fresh((steps + 1) * all_rows() * lanes, NAN);
        if (own.modulated) sequences.signal = fresh((steps + 1) * all_rows(), NAN);
        sequences.output = fresh(steps * all_rows() * own.outputs, NAN);
        action = Array<std::int64_t>(steps * all_rows(), 0, -1);
        sequences.action = action.data();
        flags = Array<std::uint8_t>((steps + 1) * all_rows(), way.shift, 0);
        for (size_t i = 0; i < flags.size(); i++) flags[i] = given.flags[i / all_rows() * rows + i % rows];
        sequences.flags = flags.data();
        for (size_t row = 0; row < all_rows(); row++) {
            bool resets = flags[row] & plastic::RESETS_ACTIVITY;
            for (size_t o = 0; o < lanes; o++)
                sequences.post[row * lanes + o] = o < units && !resets ? given.activity[row % rows * units + o] : 0.0f;
        }
        network.state.trace = of_lifetimes(given.trace);
        if (own.traced) network.state.eligibility = of_lifetimes(given.eligibility);
    }

    size_t all_rows() const { return way.individuals * rows; }

    float* fresh(size_t size, float value) {
        kept.emplace_back(size, way.shift, value);
        return kept.back().data();
    }
    // Rows of `width` (0: of their whole length, not padded) once for each individual.
    float* of_individuals(const Numbers& values, size_t width) {
        size_t count = width ? values.size() / width : 1, from = width ? width : values.size(), to = width ? lanes : from;
        float* place = fresh(way.individuals * count * to, 0.0f);
        for (size_t i = 0; i < way.individuals * count; i++)
            std::memcpy(place + i * to, values.data() + i % count * from, from * sizeof(float));
        return place;
    }
    plastic::Matrix matrix(const Numbers& values) { return {of_individuals(values, units), values.size() / units}; }
    // (T, B, size) for all individuals side by side.
    float* over_time(const Numbers& values, size_t count, size_t size) {
        float* place = fresh(count * all_rows() * size, 0.0f);
        for (size_t i = 0; i < count * way.individuals; i++)
            std::memcpy(place + i * rows * size, values.data() + i / way.individuals * rows * size,
                        rows * size * sizeof(float));
        return place;
    }
    float* of_lifetimes(const Numbers& values) { return of_individuals(values, units); }

    void step(const Level& level, size_t time) {
        plastic::Choice choice = time % 2 ? plastic::MOST_PROBABLE : plastic::SAMPLES;
        if (!level.step(network, time, choice)) fail("outputs are NaN");
        for (size_t row = 0; row < all_rows(); row++) {
            std::int64_t chosen = action[time * all_rows() + row];
            if (chosen < 0 || chosen >= own.outputs) fail("no such action");
        }
    }

    // All steps at once, or, where they are cut, as two sequences of which the second goes on from the first.
    void forward(const Level& level) {
        size_t cut = way.cut ? way.cut : steps;
        for (size_t time = 0; time < cut; time++) step(level, time);
        if (cut == steps) return;
        Network whole = network;
        plastic::Sequences& own_sequences = network.sequences;
        size_t at = cut * all_rows();
        Array<float> before(all_rows() * lanes, way.shift, 0.0f);
        for (size_t row = 0; row < all_rows(); row++)
            if (!(flags[at - all_rows() + row] & plastic::RESETS_ACTIVITY))
                std::memcpy(&before[row * lanes], own_sequences.post + (at - all_rows() + row) * lanes, lanes * sizeof(float));
        network.sizes.steps = steps - cut;
        own_sequences.presynaptic = before.data();
        own_sequences.observation += at * own.inputs;
        own_sequences.post += at * lanes;
        if (own_sequences.gated) own_sequences.gated += at * lanes;
        if (own_sequences.signal) own_sequences.signal += at;
        own_sequences.flags += at;
        own_sequences.output += at * own.outputs;
        own_sequences.noise += at;
        own_sequences.action += at;
        for (size_t time = 0; time < steps - cut; time++)
            if (!level.step(network, time, (time + cut) % 2 ? plastic::MOST_PROBABLE : plastic::SAMPLES))
                fail("outputs are NaN");
        network = whole;
    }

    // The first rows of `width` of an array whose rows are padded, those of one individual.
    Numbers rows_at(const float* from, size_t count, size_t width, size_t step) const {
        Numbers found;
        for (size_t i = 0; i < count; i++) found.insert(found.end(), from + i * step, from + i * step + width);
        return found;
    }
    // (T, B, size) of one individual.
    Numbers sequence_of(const float* from, size_t individual, size_t count, size_t size, size_t step) const {
        Numbers found;
        for (size_t t = 0; t < count; t++)
            for (size_t row = 0; row < rows; row++) {
                const float* place = from + (t * all_rows() + individual * rows + row) * step;
                found.insert(found.end(), place, place + size);
            }
        return found;
    }
    Numbers of_individual(const float* from, size_t individual, size_t count) const {
        return rows_at(from + individual * count * lanes, count, units, lanes);
    }
};

struct Found {
    std::vector<Numbers> values, gradients, others;
    std::vector<std::int64_t> actions;
};

// Runs a case forward and backward, and returns what came of each individual.
std::vector<Found> run(const Case& own, const Inputs& given, const Level& level, Way way) {
    Run all(own, given, way);
    Network& network = all.network;
    size_t units = all.units, lanes = all.lanes, rows = all.rows, steps = all.steps, every = all.all_rows();
    size_t matrix = units * lanes;
    float *trace = network.state.trace, *eligibility = network.state.eligibility;
    Array<float> first(every * matrix, way.shift, 0.0f), first_eligibility(own.traced ? every * matrix : 0, way.shift, 0.0f);
    std::memcpy(first.data(), trace, first.size() * sizeof(float));
    if (own.traced) std::memcpy(first_eligibility.data(), eligibility, first.size() * sizeof(float));
    all.forward(level);
    level.settle(network, steps);

    plastic::Gradients& gradients = all.gradients;
    const plastic::Parameters& parameters = network.parameters;
    auto like = [&](const plastic::Matrix& of) { return all.fresh(way.individuals * of.rows * lanes, 0.0f); };
    gradients.post = all.over_time(given.d_post, steps, units);
    gradients.trace = all.of_lifetimes(given.d_trace);
    if (own.traced) gradients.eligibility = all.of_lifetimes(given.d_eligibility);
    gradients.activity = all.fresh(every * lanes, 0.0f);
    gradients.total = all.fresh(steps * every * lanes, NAN);
    if (own.modulated) gradients.signal = all.fresh((steps + 1) * every, 0.0f);
    gradients.alpha = like(parameters.alpha);
    if (own.by_gate) gradients.gate = like(parameters.gate);
    if (parameters.keep.data) gradients.keep = like(parameters.keep);
    if (own.traced) gradients.rate = like(parameters.rate);
    if (!own.by_gate) gradients.offset = all.fresh(way.individuals * lanes, 0.0f);
    if (own.modulated) {
        gradients.fan = all.fresh(way.individuals * lanes, 0.0f);
        gradients.modulator = all.fresh(way.individuals * lanes, 0.0f);
        gradients.modulator_bias = all.fresh(way.individuals, 0.0f);
    }
    network.state.trace = first.data();
    network.state.eligibility = own.traced ? first_eligibility.data() : nullptr;
    size_t spacing = steps > 3 ? 3 : 1;
    size_t bytes = (level.workspace(network, spacing) * sizeof(float) + 63) / 64 * 64;
    float* workspace = static_cast<float*>(std::aligned_alloc(64, bytes));
    if (!workspace) fail("out of memory");
    std::memset(workspace, 0xff, bytes);  // NaN
    level.backward(network, gradients, spacing, workspace);
    std::free(workspace);

    std::vector<Found> found(way.individuals);
    for (size_t p = 0; p < way.individuals; p++) {
        Found& one = found[p];
        one.values.push_back(all.sequence_of(network.sequences.post + every * lanes, p, steps, units, lanes));
        one.values.push_back(all.sequence_of(network.sequences.output, p, steps, own.outputs, own.outputs));
        one.values.push_back(all.of_individual(trace, p, rows * units));
        if (own.traced) one.values.push_back(all.of_individual(eligibility, p, rows * units));
        if (own.modulated) one.others.push_back(all.sequence_of(network.sequences.signal + every, p, steps, 1, 1));

        auto of_matrix = [&](const float* from, const plastic::Matrix& of) { return all.of_individual(from, p, of.rows); };
        std::vector<Numbers>& by = one.gradients;
        by.push_back(of_matrix(gradients.alpha, parameters.alpha));
        if (own.has_eta) {  // by the gain, where eta is one, and by what is kept
            Numbers eta(given.eta.size(), 0.0f);
            if (own.by_gate) eta = of_matrix(gradients.gate, parameters.gate);
            else if (!own.modulated) eta = all.of_individual(gradients.offset, p, 1);
            if (own.decays) {
                Numbers keep = of_matrix(gradients.keep, parameters.keep);
                for (size_t i = 0; i < eta.size(); i++) eta[i] -= keep[i];
            }
            by.push_back(eta);
        }
        if (own.traced) by.push_back(of_matrix(gradients.rate, parameters.rate));
        if (own.fans_out) {
            by.push_back(all.of_individual(gradients.offset, p, 1));
            by.push_back(all.of_individual(gradients.fan, p, 1));
        }
        if (own.modulated) {
            by.push_back(all.of_individual(gradients.modulator, p, 1));
            by.push_back({gradients.modulator_bias[p]});
        }
        Numbers total = all.sequence_of(gradients.total, p, steps, units, lanes);
        Numbers by_input(own.inputs * units), by_bias(units), by_observation(given.observation.size());
        for (size_t i = 0; i < steps * rows; i++)
            for (size_t o = 0; o < units; o++) {
                by_bias[o] += total[i * units + o];
                for (size_t k = 0; k < size_t(own.inputs); k++) {
                    by_input[k * units + o] += given.observation[i * own.inputs + k] * total[i * units + o];
                    by_observation[i * own.inputs + k] += given.input[k * units + o] * total[i * units + o];
                }
            }
        by.insert(by.end(), {by_input, by_bias, by_observation});
        by.push_back(all.rows_at(gradients.activity + p * rows * lanes, rows, units, lanes));
        for (size_t row = 0; row < rows; row++)  // before the first step a reset is an activity of 0
            if (given.flags[row] & plastic::RESETS_ACTIVITY)
                std::fill_n(by.back().begin() + row * units, units, 0.0f);
        by.push_back(all.of_individual(gradients.trace, p, rows * units));
        if (own.traced) by.push_back(all.of_individual(gradients.eligibility, p, rows * units));
        for (size_t t = 0; t < steps; t++)
            for (size_t row = 0; row < rows; row++)
                one.actions.push_back(all.action[t * every + p * rows + row]);
    }
    return found;
}

// --- comparisons -----------------------------------------------------------------------------------------------------

bool same_bytes(const std::vector<Numbers>& one, const std::vector<Numbers>& other) {
    if (one.size() != other.size()) return false;
    for (size_t i = 0; i < one.size(); i++)
        if (one[i].size() != other[i].size() ||
            (!one[i].empty() && std::memcmp(one[i].data(), other[i].data(), one[i].size() * sizeof(float))))
            return false;
    return true;
}

void expect_same(const Case& own, const char* what, const Found& one, const Found& other) {
    if (!same_bytes(one.values, other.values)) fail(std::string(own.name) + ": values differ: " + what);
    if (!same_bytes(one.others, other.others)) fail(std::string(own.name) + ": signals differ: " + what);
    if (!same_bytes(one.gradients, other.gradients)) fail(std::string(own.name) + ": gradients differ: " + what);
    if (one.actions != other.actions) fail(std::string(own.name) + ": actions differ: " + what);
}

// The largest relative error of arrays, which the expected numbers from `place` on are of.
double error_of(const Case& own, const std::vector<Numbers>& arrays, size_t& place, bool values, double most) {
    double worst = 0;
    for (size_t number = 0; number < arrays.size(); number++) {
        const Numbers& array = arrays[number];
        if (place + array.size() > own.expected.size()) fail(std::string(own.name) + ": fewer numbers are expected");
        double scale = values ? 1 : 1e-6, error = 0;
        for (size_t i = 0; i < array.size(); i++) {
            scale = std::fmax(scale, std::fabs(own.expected[place + i]));
            error = std::fmax(error, std::isfinite(array[i]) ? std::fabs(double(array[i]) - own.expected[place + i]) : INFINITY);
        }
        if (!(error / scale <= most))
            fail(std::string(own.name) + ": " + (values ? "value" : "gradient") + " " + std::to_string(number) +
                 " is off by " + std::to_string(error / scale * 1e6) + " millionths");
        worst = std::fmax(worst, error / scale);
        place += array.size();
    }
    return worst;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) fail("driver cases.bin");
    plastic::Levels levels = plastic::levels();
    double value_error = 0, gradient_error = 0;
    std::vector<Case> cases = read_cases(arguments[1]);
    for (const Case& own : cases) {
        Inputs given(own);
        Found first = run(own, given, *levels.found[0], {})[0];
        size_t place = 0;
        if (!own.expected.empty()) {
            value_error = std::fmax(value_error, error_of(own, first.values, place, true, VALUES));
            gradient_error = std::fmax(gradient_error, error_of(own, first.gradients, place, false, GRADIENTS));
            if (place != own.expected.size()) fail(std::string(own.name) + ": more numbers are expected");
        }
        for (size_t i = 0; i < levels.count; i++) {
            const Level& level = *levels.found[i];
            if (i) expect_same(own, level.name, first, run(own, given, level, {})[0]);
            for (const Found& one : run(own, given, level, {2, 1, 0})) expect_same(own, "a population", first, one);
            if (own.steps > 2) {
                Run whole(own, given, {}), cut(own, given, {1, 0, size_t(own.steps) / 2});
                whole.forward(level);
                cut.forward(level);
                size_t numbers = (whole.steps + 1) * whole.rows * whole.lanes;
                if (std::memcmp(whole.network.sequences.post, cut.network.sequences.post, numbers * sizeof(float)))
                    fail(std::string(own.name) + ": a sequence that is cut in two differs");
            }
        }
    }
    std::printf("%zu cases on", cases.size());
    for (size_t i = 0; i < levels.count; i++) std::printf(" %s", levels.found[i]->name);
    std::printf(": largest error of values %.1e, of gradients %.1e\n", value_error, gradient_error);
    return 0;
}
