// What Python sees: a `Plan` binds the arrays of one network once, by name; steps and passes then take no arrays.
//
// Arrays are taken as they are, float32 (flags uint8, actions int64) in C order on the CPU, never converted: a copy would swallow what
// is written to it. The plan keeps them alive. No Python object is touched while a level works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bound.h"

namespace {

std::vector<std::string> level_names() {
    std::vector<std::string> names;
    plastic::Levels all = plastic::levels();
    for (std::size_t i = 0; i < all.count; i++) names.push_back(all.found[i]->name);
    return names;
}

// A network, its rule and its arrays.
class Plan {
public:
    Plan(const std::string& level, bool oja, bool shifted, bool traced, bool decays, bool soft, bool gate_by_synapse,
         bool computes_signal, bool simple, float clip, std::size_t individuals, std::size_t lifetimes,
         std::size_t steps, std::size_t units, std::size_t inputs, std::size_t signals, std::size_t outputs)
        : level_(level_named(level)) {
        if (!individuals || !lifetimes || !steps || !units)
            throw nb::value_error("a plan has at least one individual, lifetime, step and unit");
        if (units > 16384) throw nb::value_error("a plan has at most 16384 units");
        if (simple && (oja || soft || gate_by_synapse || (traced && decays)))
            throw nb::value_error("a simple rule has Hebb's term and no soft clip, and does not both trace and decay");
        if (computes_signal && !signals) throw nb::value_error("a computed signal is the first of the signals");
        network_.rule = {oja, shifted, traced, decays, gate_by_synapse, computes_signal, soft, simple, clip};
        network_.sizes = {individuals, lifetimes, steps, units, (units + 15) / 16 * 16, inputs, signals, outputs};
    }

    // Binds each array under its name; see `level.h` for shapes. None unbinds.
    void bind(nb::kwargs arrays) {
        for (auto [key, value] : arrays) bind_one(nb::cast<std::string>(key), value);
    }

    // Takes a step; see `Level`. `choice` is 0 for none, 1 for samples at the noise, 2 for the most probable action.
    bool step(std::size_t time, int choice) {
        check_ready(true);
        if (time >= network_.sizes.steps) throw nb::index_error("step beyond the last of the plan");
        const plastic::Sequences& own = network_.sequences;
        if (network_.parameters.head && !(own.output && network_.parameters.head_bias))
            throw nb::value_error("a head is bound without its bias or what it puts out");
        if (choice && !(network_.parameters.head && own.action && (choice == plastic::MOST_PROBABLE || own.noise)))
            throw nb::value_error("to choose by a head, actions, and noise to sample by, must be bound");
        nb::gil_scoped_release released;
        return level_.step(network_, time, static_cast<plastic::Choice>(choice));
    }

    void settle(std::size_t time) {
        check_ready(true);
        if (time > network_.sizes.steps) throw nb::index_error("step beyond the last of the plan");
        nb::gil_scoped_release released;
        level_.settle(network_, time);
    }

    void forward() {
        check_ready(true);
        nb::gil_scoped_release released;
        for (std::size_t time = 0; time < network_.sizes.steps; time++) level_.step(network_, time, plastic::OUTPUTS);
    }

    // Adds to the bound gradients, going back through all steps with checkpoints `spacing` steps apart.
    void backward(std::size_t spacing) {
        check_ready(false);
        const plastic::Gradients& own = gradients_;
        const plastic::Rule& rule = network_.rule;
        bool complete = own.total && own.alpha && (!rule.traced || own.rate) &&
                        (rule.simple && !rule.decays ? true : own.keep != nullptr) &&
                        (rule.gate_by_synapse ? own.gate != nullptr : own.offset != nullptr) &&
                        (!network_.sizes.signals || (own.signal && (rule.gate_by_synapse || own.fan))) &&
                        (!rule.shifted || (own.shift_post && own.shift_pre)) &&
                        (!rule.computes_signal || (own.modulator && own.modulator_bias));
        if (!complete) throw nb::value_error("a gradient that this rule has is not bound");
        if (!spacing) throw nb::value_error("checkpoints are at least one step apart");
        std::unique_ptr<float, void (*)(void*)> memory(nullptr, std::free);
        nb::gil_scoped_release released;
        std::size_t bytes = (level_.workspace(network_, spacing) * sizeof(float) + 63) / 64 * 64;
        memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
        if (!memory) throw std::bad_alloc();
        level_.backward(network_, gradients_, spacing, memory.get());
    }

private:
    const plastic::Level& level_;
    plastic::Network network_{};
    plastic::Gradients gradients_{};
    std::map<std::string, nb::object> kept_;

    void bind_one(const std::string& name, nb::handle value) {
        const plastic::Sizes& own = network_.sizes;
        std::size_t rows = own.individuals * own.lifetimes;
        Shape by_row{rows, own.units, own.lanes}, vectors{rows, own.lanes};
        auto over_time = [&](std::size_t steps, std::size_t size) { return Shape{steps, rows, size}; };
        plastic::Parameters& parameters = network_.parameters;
        plastic::Sequences& sequences = network_.sequences;
        plastic::Gradients& gradients = gradients_;

        auto plain = [&](auto*& place, const Shape& shape) {
            using Element = std::remove_const_t<std::remove_reference_t<decltype(*place)>>;
            place = value.is_none() ? nullptr : elements<Element>(name, value, shape);
        };
        auto matrix = [&](plastic::Matrix& place) {
            place = {};
            if (value.is_none()) return;
            // One row, or one for each unit.
            std::size_t found = own.units;
            nb::ndarray<nb::c_contig, nb::device::cpu> any;
            if (nb::try_cast(value, any, false) && any.ndim() == 3 && any.shape(1) == 1) found = 1;
            place = {elements<float>(name, value, {own.individuals, found, own.lanes}), found};
        };
        // The gradient of a matrix has the shape of the matrix, which is bound before.
        auto of_matrix = [&](float*& place, const plastic::Matrix& of) {
            if (!value.is_none() && !of.data) throw nb::value_error((name + ": its matrix is not bound").c_str());
            plain(place, {own.individuals, of.rows, own.lanes});
        };

        const std::map<std::string, std::function<void()>> places{
            {"weight", [&] { matrix(parameters.weight); }},
            {"alpha", [&] { matrix(parameters.alpha); }},
            {"gate", [&] { matrix(parameters.gate); }},
            {"keep", [&] { matrix(parameters.keep); }},
            {"rate", [&] { matrix(parameters.rate); }},
            {"offset", [&] { plain(parameters.offset, {own.individuals, own.lanes}); }},
            {"fan", [&] { plain(parameters.fan, {own.individuals, own.signals, own.lanes}); }},
            {"modulator", [&] { plain(parameters.modulator, {own.individuals, own.lanes}); }},
            {"modulator_bias", [&] { plain(parameters.modulator_bias, {own.individuals}); }},
            {"shift_post", [&] { plain(parameters.shift_post, {own.individuals, own.lanes}); }},
            {"shift_pre", [&] { plain(parameters.shift_pre, {own.individuals, own.lanes}); }},
            {"shifted_post", [&] { plain(sequences.shifted_post, over_time(own.steps + 1, own.lanes)); }},
            {"shifted_pre", [&] { plain(sequences.shifted_pre, over_time(own.steps + 1, own.lanes)); }},
            {"d_shift_post", [&] { plain(gradients.shift_post, {own.individuals, own.lanes}); }},
            {"d_shift_pre", [&] { plain(gradients.shift_pre, {own.individuals, own.lanes}); }},
            {"input", [&] { plain(parameters.input, {own.individuals, own.inputs, own.lanes}); }},
            {"bias", [&] { plain(parameters.bias, {own.individuals, own.lanes}); }},
            {"observation", [&] { plain(sequences.observation, over_time(own.steps, own.inputs)); }},
            {"drive", [&] { plain(sequences.drive, over_time(own.steps, own.lanes)); }},
            {"post", [&] { plain(sequences.post, over_time(own.steps + 1, own.lanes)); }},
            {"gated", [&] { plain(sequences.gated, over_time(own.steps + 1, own.lanes)); }},
            {"signal", [&] { plain(sequences.signal, over_time(own.steps + 1, own.signals)); }},
            {"presynaptic", [&] { plain(sequences.presynaptic, vectors); }},
            {"flags", [&] { plain(sequences.flags, {own.steps + 1, rows}); }},
            {"head", [&] { plain(parameters.head, {own.individuals, own.outputs, own.lanes}); }},
            {"head_bias", [&] { plain(parameters.head_bias, {own.individuals, own.outputs}); }},
            {"output", [&] { plain(sequences.output, over_time(own.steps, own.outputs)); }},
            {"noise", [&] { plain(sequences.noise, {own.steps, rows}); }},
            {"action", [&] { plain(sequences.action, {own.steps, rows}); }},
            {"trace", [&] { plain(network_.state.trace, by_row); }},
            {"eligibility", [&] { plain(network_.state.eligibility, by_row); }},
            {"d_post", [&] { plain(gradients.post, over_time(own.steps, own.units)); }},
            {"d_trace", [&] { plain(gradients.trace, by_row); }},
            {"d_eligibility", [&] { plain(gradients.eligibility, by_row); }},
            {"d_activity", [&] { plain(gradients.activity, vectors); }},
            {"d_presynaptic", [&] { plain(gradients.presynaptic, vectors); }},
            {"d_total", [&] { plain(gradients.total, over_time(own.steps, own.lanes)); }},
            {"d_signal", [&] { plain(gradients.signal, over_time(own.steps + 1, own.signals)); }},
            {"d_alpha", [&] { of_matrix(gradients.alpha, parameters.alpha); }},
            {"d_gate", [&] { of_matrix(gradients.gate, parameters.gate); }},
            {"d_keep", [&] { of_matrix(gradients.keep, parameters.keep); }},
            {"d_rate", [&] { of_matrix(gradients.rate, parameters.rate); }},
            {"d_offset", [&] { plain(gradients.offset, {own.individuals, own.lanes}); }},
            {"d_fan", [&] { plain(gradients.fan, {own.individuals, own.signals, own.lanes}); }},
            {"d_modulator", [&] { plain(gradients.modulator, {own.individuals, own.lanes}); }},
            {"d_modulator_bias", [&] { plain(gradients.modulator_bias, {own.individuals}); }},
        };
        auto place = places.find(name);
        if (place == places.end()) throw nb::value_error(("a plan has no array " + name).c_str());
        place->second();
        kept_[name] = nb::borrow(value);
    }

    // `trace`: whether one must be bound; going back, none stands for 0.
    void check_ready(bool trace) const {
        const plastic::Rule& rule = network_.rule;
        const plastic::Parameters& own = network_.parameters;
        const plastic::Sequences& sequences = network_.sequences;
        bool complete = own.weight.data && own.alpha.data && sequences.post && sequences.flags &&
                        (sequences.drive || (sequences.observation && own.input && own.bias)) &&
                        (rule.gate_by_synapse ? own.gate.data != nullptr : own.offset && sequences.gated) &&
                        (!network_.sizes.signals || (sequences.signal && (rule.gate_by_synapse || own.fan))) &&
                        (!rule.computes_signal || (own.modulator && own.modulator_bias)) &&
                        (!rule.traced || own.rate.data) &&
                        (!rule.shifted ||
                         (own.shift_post && own.shift_pre && sequences.shifted_post && sequences.shifted_pre)) &&
                        (rule.simple && !rule.decays ? true : own.keep.data != nullptr);
        complete = complete && (!trace || network_.state.trace);
        if (!complete) throw nb::value_error("an array that this rule needs is not bound");
        if (rule.simple && (own.keep.rows > 1 || own.rate.rows > 1))
            throw nb::value_error("keep and rate of a simple rule are the same for all synapses onto a unit");
        if (rule.traced && network_.state.trace && !network_.state.eligibility)
            throw nb::value_error("a trace is bound without its eligibility");
    }
};

}  // namespace

void bind_rule_tables(nb::module_& module);

NB_MODULE(_core, module) {
    bind_rule_tables(module);
    module.def("levels", &level_names, "Names of the instruction-set levels that this processor runs, the fastest last.");
    nb::class_<Plan>(module, "Plan")
        .def(nb::init<const std::string&, bool, bool, bool, bool, bool, bool, bool, bool, float, std::size_t, std::size_t,
                      std::size_t, std::size_t, std::size_t, std::size_t, std::size_t>(),
             nb::arg("level"), nb::kw_only(), nb::arg("oja"), nb::arg("shifted"), nb::arg("traced"), nb::arg("decays"), nb::arg("soft"),
             nb::arg("gate_by_synapse"), nb::arg("computes_signal"), nb::arg("simple"), nb::arg("clip"),
             nb::arg("individuals"), nb::arg("lifetimes"), nb::arg("steps"), nb::arg("units"), nb::arg("inputs"),
             nb::arg("signals"), nb::arg("outputs") = 0)
        .def("bind", &Plan::bind)
        .def("step", &Plan::step, nb::arg("time"), nb::arg("choice") = 0)
        .def("settle", &Plan::settle, nb::arg("time"))
        .def("forward", &Plan::forward)
        .def("backward", &Plan::backward, nb::arg("spacing"));
    module.def(
        "tanh",
        [](const std::string& level, nb::handle values, nb::handle out) {
            std::size_t count = nb::len(values);
            if (count % 16) throw nb::value_error("as many values as whole vectors of sixteen have");
            const float* from = elements<float>("values", values, {count});
            level_named(level).tanh(from, elements<float>("out", out, {count}), count);
        },
        nb::arg("level"), nb::arg("values"), nb::arg("out"), "Write tanh of `values`, as a level computes it, to `out`.");
}
