// What the levels of instructions share: plain data in, plain functions out.
//
// Notation of one step t of a lifetime, with `~` after the resets of step t:
//
//     F~_t, E~_t = update_t(F~_{t-1}, E~_{t-1})     from x_{t-1}, y_{t-1}, G_{t-1}: what waits is applied when it is read
//     z_t = U o_t + b + (W0 + alpha * F~_t) x_t,  x_t = y~_{t-1},  y_t = tanh(z_t)
//
// Matrices stand transposed, (I, S) with a row for each presynaptic unit, S units rounded up to sixteen: a step is then
// one pass over the trace in which every postsynaptic unit has a lane. Rows of lifetimes run over individuals first.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plastic {

// What happens to a lifetime before a step's forward pass.
enum Flag : std::uint8_t { UPDATES = 1, RESETS_TRACE = 2, RESETS_ELIGIBILITY = 4, RESETS_ACTIVITY = 8 };

struct Rule {
    bool oja;              // D = y (x - y F); else D = y x
    bool shifted;          // y and x less a threshold of each unit, in place of y and x
    bool traced;           // the gain gates an eligibility E
    bool decays;           // F is multiplied by `keep`
    bool gate_by_synapse;  // the gain is `gate`, of each synapse, times the first signal where there is one
    bool computes_signal;  // the first signal is tanh(w_m . y + b_m)
    bool soft;             // changes shrink towards the bound
    bool simple;           // Hebb's term, and all but alpha the same for all synapses onto a unit; no soft clip, and
                           // either an eligibility or a decay
    float clip;            // of F; infinite where there is none
};

// Sizes: P individuals with B lifetimes each, T steps, I units of S lanes, J inputs, K signals, A outputs.
struct Sizes {
    std::size_t individuals, lifetimes, steps, units, lanes, inputs, signals, outputs;
};

// What becomes of the outputs of a step.
enum Choice : int { OUTPUTS, SAMPLES, MOST_PROBABLE };

// One individual's numbers follow the other's. Of a matrix whose rows are all alike only one row is there.
struct Matrix {
    const float* data;  // (P, I or 1, S)
    std::size_t rows;
};

struct Parameters {
    Matrix weight;           // W0
    Matrix alpha;
    Matrix gate;             // eta of each synapse, where `gate_by_synapse`
    Matrix keep;             // rho, 1 where nothing decays; read unless the rule is simple and does not decay
    Matrix rate;             // eta_E
    const float* offset;     // (P, S): G = offset + sum_k fan_k C_k
    const float* fan;        // (P, K, S)
    const float* modulator;  // w_m, (P, S)
    const float* modulator_bias;  // (P)
    const float* shift_post;  // theta_y, (P, S), where `shifted`; and theta_x
    const float* shift_pre;
    const float* input;      // U, (P, J, S); null where the drive is given
    const float* bias;       // (P, S)
    const float* head;       // V, (P, A, S), or null: no outputs V y + c
    const float* head_bias;  // c, (P, A)
};

struct Sequences {
    const float* observation;   // (T, P B, J)
    const float* drive;         // U o + b, (T, P B, S), in place of observations
    float* post;                // y: (T + 1, P B, S), what was before the first step first
    float* gated;               // G y of a simple rule that is not traced, else G: (T + 1, P B, S)
    float* shifted_post;        // y - theta_y and x - theta_x of the update into each step: (T + 1, P B, S)
    float* shifted_pre;
    float* signal;              // C: (T + 1, P B, K)
    const float* presynaptic;   // x of the update into the first step, (P B, S), or null: 0
    const std::uint8_t* flags;  // (T + 1, P B)
    float* output;              // (T, P B, A)
    const float* noise;         // uniform, (T, P B)
    std::int64_t* action;       // one of A, by the softmax of the outputs: (T, P B)
};

struct State {
    float* trace;        // (P B, I, S)
    float* eligibility;  // likewise, or null
};

// What a backward pass reads and fills; all that is filled is added to.
struct Gradients {
    const float* post;  // by the features, (T, P B, I) without padding, or null
    float* trace;       // by the last trace, and then by the first: (P B, I, S), or null
    float* eligibility;
    float* activity;     // by y before the first step, (P B, S), or null
    float* presynaptic;  // by x of the update into the first step, (P B, S), or null
    float* total;        // by z: (T, P B, S), written
    float* signal;       // by signals that are given: (T + 1, P B, K)
    float* alpha;        // as the parameters
    float* gate;
    float* keep;
    float* rate;
    float* offset;
    float* fan;
    float* modulator;
    float* modulator_bias;
    float* shift_post;
    float* shift_pre;
};

struct Network {
    Rule rule;
    Sizes sizes;
    Parameters parameters;
    Sequences sequences;
    State state;
};

struct RuleTable;

struct Level {
    const char* name;
    // Acts in one step of all lifetimes: reads row `time` of the sequences, writes row `time + 1` of y. Returns whether
    // all outputs can be chosen by: minus infinity can, NaN cannot.
    bool (*step)(const Network&, std::size_t time, Choice choice);
    // Applies what waits after the last step, `time` of them done.
    void (*settle)(const Network&, std::size_t time);
    // Goes back through all steps; `state` holds what was before the first, and stays.
    void (*backward)(const Network&, const Gradients&, std::size_t spacing, float* workspace);
    // Floats of workspace that `backward` needs.
    std::size_t (*workspace)(const Network&, std::size_t spacing);
    void (*tanh)(const float* from, float* to, std::size_t count);  // a multiple of sixteen
    // Of rule-table networks; see `rule_table.h`. Returns whether all outputs can be chosen by: all are finite.
    bool (*table_step)(const RuleTable&, Choice choice);
    std::size_t (*table_workspace)(const RuleTable&);
};

}  // namespace plastic
