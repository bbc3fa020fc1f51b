// A rule-table network's step, as plain data in and out: see networks/rule_table for what it computes.
//
// Weights onto hidden units stand in tiles of sixteen of these, (S / 16, pre, 16): a tile is updated, scaled and read
// while it is in the first cache. Those onto the outputs stand in rows, (K, S). Rows of lifetimes run over individuals
// first, as everywhere.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plastic {

enum Normalise : int { UNSCALED, INCOMING, OUTGOING };
enum Activation : int { LINEAR, RELU, SIGMOID, TANH };
enum OutputTable : int { LABEL_FREE, SUPERVISED, SUPERVISED_CHOSEN };

struct TableLayer {
    int plastic;      // its weights change
    int presynaptic;  // changes are multiplied by the presynaptic activity
    int gated;        // entries of their own for rewards above average; of input and hidden tables
    int normalise;
    int shared;       // all individuals have the same weights: (B, ..) instead of (P B, ..)
};

struct TableRule {
    TableLayer input, hidden, output;
    int cap;     // at least as many as units: all
    int rounds;  // codes have one bit more
    int joosten;
    int activation;
    int with_one;  // the last input is a constant 1
    int output_table;
    int zero_is_none;     // a reward of 0 is no outcome
    int without_outcome;  // and has entries of its own
    int multiplicative;
    int errors;  // changes on errors alone
    int surprise;
    int reads_reward;
    int argmax;  // in place of the softmax
    int explores;
    int frozen;
    float reward_average_rate;
};

// Sizes: P individuals with B lifetimes each, J columns of observations, F inputs, H units of S lanes, K outputs.
struct TableSizes {
    std::size_t individuals, lifetimes, columns, inputs, units, lanes, outputs;
    std::size_t action, reward, label;  // first columns of the feedback
};

struct RuleTable {
    TableRule rule;
    TableSizes sizes;
    // Tables times their steps: (P, G, C), (P, G, C, C) by pre and post, (P, conditions, C).
    const float *input_rows, *hidden_rows, *output_rows;
    const float *beta, *uniform, *guided;  // (P), where the choice uses them
    float *input_weight, *hidden_weight, *output_weight;
    float* code;              // (P B, S)
    float *seen, *arriving;   // (P B, F), (P B, S): presynaptic activity of the step before, where plasticity reads it
    float* kept;              // (P B, S), likewise
    float* average;           // of the reward, (P B)
    float* preference;        // outputs, (P B, K)
    const float* observation;      // (P B, J)
    const std::uint8_t* starts;    // (P B)
    const float* noise;            // uniform, (P B)
    std::int64_t* action;          // (P B)
    float* workspace;

    std::size_t codes() const { return std::size_t(2) << rule.rounds; }
    std::size_t conditions() const {
        return (rule.output_table == SUPERVISED ? 2 : 4) + (rule.without_outcome ? 2 : 0);
    }
    std::size_t gates(const TableLayer& layer) const { return (layer.gated ? 2 : 1) + (rule.without_outcome ? 1 : 0); }
};

}  // namespace plastic
