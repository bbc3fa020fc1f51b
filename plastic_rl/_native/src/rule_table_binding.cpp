// The module's `RuleTablePlan`: the arrays of rule-table networks, bound once; steps then take none. As `Plan` takes them.
#include <nanobind/stl/string.h>

#include <functional>
#include <limits>
#include <map>
#include <memory>

#include "bound.h"
#include "rule_table.h"

namespace {

class RuleTablePlan {
public:
    // Every entry of the rule and of the sizes by name; those of layers as `input_plastic`.
    RuleTablePlan(const std::string& level, nb::kwargs given) : level_(level_named(level)) {
        plastic::TableRule& rule = own_.rule;
        plastic::TableSizes& sizes = own_.sizes;
        std::map<std::string, int*> numbers{
            {"cap", &rule.cap},
            {"rounds", &rule.rounds},
            {"joosten", &rule.joosten},
            {"activation", &rule.activation},
            {"with_one", &rule.with_one},
            {"output_table", &rule.output_table},
            {"zero_is_none", &rule.zero_is_none},
            {"without_outcome", &rule.without_outcome},
            {"multiplicative", &rule.multiplicative},
            {"errors", &rule.errors},
            {"surprise", &rule.surprise},
            {"reads_reward", &rule.reads_reward},
            {"argmax", &rule.argmax},
            {"explores", &rule.explores},
            {"frozen", &rule.frozen},
        };
        const std::map<std::string, plastic::TableLayer*> layers{
            {"input", &rule.input}, {"hidden", &rule.hidden}, {"output", &rule.output}};
        for (auto& [name, layer] : layers) {
            numbers[name + "_plastic"] = &layer->plastic;
            numbers[name + "_presynaptic"] = &layer->presynaptic;
            numbers[name + "_gated"] = &layer->gated;
            numbers[name + "_normalise"] = &layer->normalise;
            numbers[name + "_shared"] = &layer->shared;
        }
        const std::map<std::string, std::size_t*> counts{
            {"individuals", &sizes.individuals}, {"lifetimes", &sizes.lifetimes}, {"columns", &sizes.columns},
            {"inputs", &sizes.inputs},           {"units", &sizes.units},         {"outputs", &sizes.outputs},
            {"action", &sizes.action},           {"reward", &sizes.reward},       {"label", &sizes.label}};
        std::size_t found = 0;
        for (auto [key, value] : given) {
            std::string name = nb::cast<std::string>(key);
            auto number = numbers.find(name);
            auto count = counts.find(name);
            if (number != numbers.end()) *number->second = nb::cast<int>(value);
            else if (count != counts.end()) *count->second = nb::cast<std::size_t>(value);
            else if (name == "reward_average_rate") rule.reward_average_rate = nb::cast<float>(value);
            else throw nb::value_error(("a rule-table plan has no " + name).c_str());
            found++;
        }
        if (found != numbers.size() + counts.size() + 1)
            throw nb::value_error("a rule-table plan is given all of its rule and sizes");
        check();
        sizes.lanes = (sizes.units + 15) / 16 * 16;
        workspace_.reset(new float[level_.table_workspace(own_)]());
        own_.workspace = workspace_.get();
    }

    // Binds each array under its name; see `rule_table.h` for shapes. None unbinds.
    void bind(nb::kwargs arrays) {
        for (auto [key, value] : arrays) bind_one(nb::cast<std::string>(key), value);
    }

    // Says whether all individuals have the same weights of a layer, which are of another shape then: unbinds them.
    void share(bool input, bool hidden) {
        if ((input && own_.rule.input.plastic) || (hidden && own_.rule.hidden.plastic))
            throw nb::value_error("weights that change are each individual's own");
        own_.rule.input.shared = input;
        own_.rule.hidden.shared = hidden;
        own_.input_weight = own_.hidden_weight = nullptr;
    }

    // Takes a step; see `Level`. `choice` is 0 for none, 1 for samples at the noise, 2 for the most probable action.
    bool step(int choice) {
        const plastic::TableRule& rule = own_.rule;
        bool complete = own_.input_weight && own_.output_weight && (!rule.rounds || own_.hidden_weight) && own_.code &&
                        own_.preference && own_.observation && own_.starts &&
                        (!rule.input.plastic || (own_.input_rows && (!rule.input.presynaptic || own_.seen))) &&
                        (!rule.hidden.plastic || (own_.hidden_rows && (!rule.hidden.presynaptic || own_.arriving))) &&
                        (!rule.output.plastic || (own_.output_rows && (!rule.output.presynaptic || own_.kept))) &&
                        (!rule.reads_reward || own_.average) && (rule.argmax || own_.beta) &&
                        (!rule.explores || (own_.uniform && own_.guided)) && (!choice || own_.action) &&
                        (choice != plastic::SAMPLES || own_.noise);
        if (!complete) throw nb::value_error("an array that this rule or choice needs is not bound");
        nb::gil_scoped_release released;
        return level_.table_step(own_, static_cast<plastic::Choice>(choice));
    }

private:
    const plastic::Level& level_;
    plastic::RuleTable own_{};
    std::unique_ptr<float[]> workspace_;
    std::map<std::string, nb::object> kept_;

    void check() const {
        const plastic::TableRule& rule = own_.rule;
        const plastic::TableSizes& sizes = own_.sizes;
        if (!sizes.individuals || !sizes.lifetimes || !sizes.units || !sizes.inputs || !sizes.outputs)
            throw nb::value_error("a plan has at least one individual, lifetime, unit, input and output");
        if (rule.rounds < 0 || rule.rounds > 6 || rule.cap < 1)
            throw nb::value_error("rounds are 0 to 6, and at least one unit is kept");
        bool reads_label = rule.output_table != plastic::LABEL_FREE;
        if (sizes.inputs > sizes.columns + (rule.with_one ? 1 : 0) || sizes.action + sizes.outputs > sizes.columns ||
            sizes.reward >= sizes.columns || (reads_label && sizes.label + sizes.outputs > sizes.columns))
            throw nb::value_error("observations do not have all columns that are read");
        if (rule.without_outcome && (reads_label || !rule.zero_is_none))
            throw nb::value_error("steps without an outcome are of label-free tables");
        bool by_reward = rule.input.gated || rule.hidden.gated || rule.surprise ||
                         (!reads_label && (rule.output.plastic || rule.errors));
        if ((rule.input.plastic || rule.hidden.plastic || rule.output.plastic) && by_reward && !rule.reads_reward)
            throw nb::value_error("this rule reads the reward");
        if ((rule.input.shared && rule.input.plastic) || (rule.hidden.shared && rule.hidden.plastic))
            throw nb::value_error("weights that change are each individual's own");
    }

    void bind_one(const std::string& name, nb::handle value) {
        const plastic::TableRule& rule = own_.rule;
        const plastic::TableSizes& own = own_.sizes;
        std::size_t P = own.individuals, rows = P * own.lifetimes, C = own_.codes(), tiles = own.lanes / 16;
        auto plain = [&](auto*& place, const Shape& shape) {
            using Element = std::remove_const_t<std::remove_reference_t<decltype(*place)>>;
            place = value.is_none() ? nullptr : elements<Element>(name, value, shape);
        };
        auto weights = [&](float*& place, const plastic::TableLayer& layer, std::size_t count) {
            plain(place, {layer.shared ? own.lifetimes : rows, tiles, count, 16});
        };
        const std::map<std::string, std::function<void()>> places{
            {"input_rows", [&] { plain(own_.input_rows, {P, own_.gates(rule.input), C}); }},
            {"hidden_rows", [&] { plain(own_.hidden_rows, {P, own_.gates(rule.hidden), C, C}); }},
            {"output_rows", [&] { plain(own_.output_rows, {P, own_.conditions(), C}); }},
            {"beta", [&] { plain(own_.beta, {P}); }},
            {"uniform", [&] { plain(own_.uniform, {P}); }},
            {"guided", [&] { plain(own_.guided, {P}); }},
            {"input_weight", [&] { weights(own_.input_weight, rule.input, own.inputs); }},
            {"hidden_weight", [&] { weights(own_.hidden_weight, rule.hidden, own.units); }},
            {"output_weight", [&] { plain(own_.output_weight, {rows, own.outputs, own.lanes}); }},
            {"code", [&] { plain(own_.code, {rows, own.lanes}); }},
            {"seen", [&] { plain(own_.seen, {rows, own.inputs}); }},
            {"arriving", [&] { plain(own_.arriving, {rows, own.lanes}); }},
            {"kept", [&] { plain(own_.kept, {rows, own.lanes}); }},
            {"average", [&] { plain(own_.average, {rows}); }},
            {"preference", [&] { plain(own_.preference, {rows, own.outputs}); }},
            {"observation", [&] { plain(own_.observation, {rows, own.columns}); }},
            {"starts", [&] { plain(own_.starts, {rows}); }},
            {"noise", [&] { plain(own_.noise, {rows}); }},
            {"action", [&] { plain(own_.action, {rows}); }},
        };
        auto place = places.find(name);
        if (place == places.end()) throw nb::value_error(("a rule-table plan has no array " + name).c_str());
        place->second();
        kept_[name] = nb::borrow(value);
    }
};

}  // namespace

void bind_rule_tables(nb::module_& module) {
    nb::class_<RuleTablePlan>(module, "RuleTablePlan")
        .def(nb::init<const std::string&, nb::kwargs>(), nb::arg("level"), nb::arg("given"))
        .def("bind", &RuleTablePlan::bind)
        .def("share", &RuleTablePlan::share, nb::arg("input_layer"), nb::arg("hidden_layer"))
        .def("step", &RuleTablePlan::step, nb::arg("choice") = 0);
}
