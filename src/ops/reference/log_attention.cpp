// The literal definition: the quadratic form in log space, logarithms of sums of exponentials throughout.
#include <limits>

#include "base/threads.h"
#include "ops/reference/arithmetic.h"
#include "ops/reference/reference.h"

namespace sparsam::reference {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class W>
bool present(const W& logarithm) {
  return static_cast<double>(logarithm) > -infinity;
}
size_t at(i64 row, i64 columns, i64 column) { return static_cast<size_t>(row * columns + column); }

// What the queries of one group see: the tokens, and of an initial state one more source for each key channel.
template <class Real>
class Group {
 public:
  using W = Wide<Real>;

  template <class O>
  Group(const O& op, i64 b, i64 g)
      : time(op.q.shape(1)),
        key_dim(op.k.shape(3)),
        value_dim(op.v.shape(3)),
        log_values(op.log_values),
        decay_(static_cast<size_t>(time * key_dim)),
        resets_(static_cast<size_t>(time * key_dim)) {
    for (i64 t = 0; t < time; ++t) {
      for (i64 a = 0; a < key_dim; ++a) {
        keys_.push_back(wide(op.k(b, t, g, a)));
        if (op.gate.empty()) continue;
        const W before = t ? decay_[at(t - 1, key_dim, a)] : W(0), gate = wide(op.gate(b, t, g, a));
        decay_[at(t, key_dim, a)] = present(gate) ? before + gate : before;
        resets_[at(t, key_dim, a)] = (t ? resets_[at(t - 1, key_dim, a)] : 0) + !present(gate);
      }
      for (i64 d = 0; d < value_dim; ++d) values_.push_back(wide(op.v(b, t, g, d)));
    }
    if (op.initial_sums.empty()) return;
    for (i64 a = 0; a < key_dim; ++a) {
      const W mass = wide(op.initial_mass(b, g, a)), scale = wide(op.initial_scale(b, g, a));
      const bool some = static_cast<double>(mass) > 0 && present(scale);
      initial_keys_.push_back(some ? scale + log(mass) : W(-infinity));
      for (i64 d = 0; d < value_dim; ++d) {
        const W mean = some ? wide(op.initial_sums(b, g, a, d)) / mass : W(0);
        initial_values_.push_back(!log_values ? mean : static_cast<double>(mean) > 0 ? log(mean) : W(-infinity));
      }
    }
  }

  // k_ua + G_ta - G_ua, or -infinity.
  W token(i64 t, i64 u, i64 a) const {
    if (resets_[at(t, key_dim, a)] != resets_[at(u, key_dim, a)] || !present(keys_[at(u, key_dim, a)]))
      return -infinity;
    return keys_[at(u, key_dim, a)] + (decay_[at(t, key_dim, a)] - decay_[at(u, key_dim, a)]);
  }
  bool has_initial() const { return !initial_keys_.empty(); }
  W initial(i64 t, i64 a) const {
    const W key = initial_keys_[static_cast<size_t>(a)];
    return resets_[at(t, key_dim, a)] || !present(key) ? W(-infinity) : key + decay_[at(t, key_dim, a)];
  }
  const W* values(i64 u) const { return &values_[at(u, value_dim, 0)]; }  // (D)  v, as given
  const W* initial_values(i64 a) const { return &initial_values_[at(a, value_dim, 0)]; }
  W plain(const W& value) const { return log_values ? exp(value) : value; }

  i64 time, key_dim, value_dim;
  bool log_values;

 private:
  std::vector<W> keys_, values_, initial_keys_, initial_values_, decay_;  // decay: G, over the gates that are finite
  std::vector<int> resets_;                                               // gates of -infinity so far
};

// One term of a query's sums: log sum_a w_tua of a token, log w_ta of an initial channel; and its values.
template <class W>
struct Source {
  W logarithm;
  const W* values;
};

template <class Real>
using Weights = std::vector<Source<Wide<Real>>>;

// sum_u exp(logarithm_u - total) v_ub, or log sum_u exp(logarithm_u - total + v_ub)
template <class Real>
Wide<Real> pooled(const Group<Real>& group, const Weights<Real>& sources, const Wide<Real>& total, i64 b) {
  using W = Wide<Real>;
  W sum = 0;
  std::vector<W> logarithms;
  for (const auto& source : sources) {
    if (!group.log_values)
      sum += exp(source.logarithm - total) * source.values[b];
    else if (present(source.values[b]))
      logarithms.push_back(source.logarithm + source.values[b]);
  }
  if (!group.log_values) return sum;
  return logarithms.empty() ? W(0) : log_sum_exp(logarithms) - total;
}

template <class Real>
Wide<Real> total_of(const Weights<Real>& sources) {
  std::vector<Wide<Real>> logarithms;
  for (const auto& source : sources) logarithms.push_back(source.logarithm);
  return log_sum_exp(logarithms);
}

// What channel a of the state holds after the last token.
template <class Real>
Weights<Real> channel_sources(const Group<Real>& group, i64 a) {
  Weights<Real> sources;
  const i64 last = group.time - 1;
  for (i64 u = 0; u < group.time; ++u) sources.push_back({group.token(last, u, a), group.values(u)});
  if (group.has_initial()) sources.push_back({group.initial(last, a), group.initial_values(a)});
  std::erase_if(sources, [](const auto& source) { return !present(source.logarithm); });
  return sources;
}

template <class Real>
void final_state(const generic::LogAttention<Real>& op, const Group<Real>& group, i64 b, i64 g) {
  using W = Wide<Real>;
  for (i64 a = 0; a < group.key_dim; ++a) {
    const Weights<Real> sources = channel_sources(group, a);
    W mass = 0;
    const W scale = sources.empty() ? W(-infinity) : total_of<Real>(sources);
    for (const auto& source : sources) mass += exp(source.logarithm - scale);
    op.final_scale(b, g, a) = static_cast<Real>(scale);
    op.final_mass(b, g, a) = static_cast<Real>(mass);
    for (i64 d = 0; d < group.value_dim; ++d) {
      W sum = 0;
      for (const auto& source : sources) sum += exp(source.logarithm - scale) * group.plain(source.values[d]);
      op.final_sums(b, g, a, d) = static_cast<Real>(sum);
    }
  }
}

}  // namespace

template <class Real>
void run(const generic::LogAttention<Real>& op) {
  using W = Wide<Real>;
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 T = time, H = heads, G = groups, E = key_dim, D = value_dim;
  parallel_dynamic(batch * G, [&](int, i64 index) {
    const i64 b = index / G, g = index % G;
    const Group<Real> group(op, b, g);
    for (i64 h = g * H / G; h < (g + 1) * H / G; ++h)
      for (i64 t = 0; t < T; ++t) {
        Weights<Real> sources;
        for (i64 u = 0; u < (op.causal ? t + 1 : T); ++u) {
          std::vector<W> channels;
          for (i64 a = 0; a < E; ++a)
            if (const W key = group.token(t, u, a); present(key)) channels.push_back(wide(op.q(b, t, h, a)) + key);
          if (!channels.empty()) sources.push_back({log_sum_exp(channels), group.values(u)});
        }
        for (i64 a = 0; group.has_initial() && a < E; ++a)
          if (const W key = group.initial(t, a); present(key))
            sources.push_back({wide(op.q(b, t, h, a)) + key, group.initial_values(a)});
        const W lse = sources.empty() ? W(-infinity) : total_of<Real>(sources);
        if (!op.lse.empty()) op.lse(b, h, t) = static_cast<Real>(lse);
        for (i64 d = 0; d < D; ++d)
          op.y(b, t, h, d) = static_cast<Real>(sources.empty() ? W(0) : pooled<Real>(group, sources, lse, d));
      }
    if (!op.final_sums.empty()) final_state(op, group, b, g);
  });
}

namespace {

// Gradients of one group's sources.
template <class Real>
struct SourceGradients {
  std::vector<Wide<Real>> keys, values, initial_keys, initial_values;  // (T, E), (T, D), (E), (E, D)

  explicit SourceGradients(const Group<Real>& group)
      : keys(at(group.time, group.key_dim, 0)),
        values(at(group.time, group.value_dim, 0)),
        initial_keys(static_cast<size_t>(group.key_dim)),
        initial_values(at(group.key_dim, group.value_dim, 0)) {}
};

// The gradients through one query: calls pass(p, key gradient, values, their gradients) for each of its sources.
template <class Real>
void query_backward(const generic::LogAttentionBackward<Real>& op, const Group<Real>& group, i64 b, i64 t, i64 h,
                    Sums<Real>& dq, SourceGradients<Real>& gradients) {
  using W = Wide<Real>;
  const i64 E = group.key_dim, D = group.value_dim;
  const W lse = wide(op.lse(b, h, t));
  if (!present(lse)) return;
  W delta = 0;
  for (i64 d = 0; d < D; ++d) delta += wide(op.dy(b, t, h, d)) * (op.log_values ? W(1) : wide(op.y(b, t, h, d)));
  // dy_tb r_tub
  const auto pull = [&](const W* v, i64 d) {
    const W r = !op.log_values ? v[d] : present(v[d]) ? exp(v[d] - wide(op.y(b, t, h, d))) : W(0);
    return wide(op.dy(b, t, h, d)) * r;
  };
  const auto slope = [&](const W* v) {  // s_tu = sum_b dy_tb r_tub - delta_t
    W s = -delta;
    for (i64 d = 0; d < D; ++d) s += pull(v, d);
    return s;
  };
  const auto add_values = [&](const W& p, const W* v, W* dv) {
    for (i64 d = 0; d < D; ++d) dv[d] += p * (op.log_values ? pull(v, d) : wide(op.dy(b, t, h, d)));
  };
  for (i64 u = 0; u < (op.causal ? t + 1 : group.time); ++u) {
    const W s = slope(group.values(u));
    W sum = 0;
    for (i64 a = 0; a < E; ++a) {
      const W key = group.token(t, u, a);
      if (!present(key)) continue;
      const W p = exp(wide(op.q(b, t, h, a)) + key - lse);
      dq[static_cast<size_t>(a)] += p * s;
      gradients.keys[at(u, E, a)] += p * s;
      sum += p;
    }
    add_values(sum, group.values(u), &gradients.values[at(u, D, 0)]);
  }
  for (i64 a = 0; group.has_initial() && a < E; ++a) {
    const W key = group.initial(t, a);
    if (!present(key)) continue;
    const W p = exp(wide(op.q(b, t, h, a)) + key - lse), s = slope(group.initial_values(a));
    dq[static_cast<size_t>(a)] += p * s;
    gradients.initial_keys[static_cast<size_t>(a)] += p * s;
    add_values(p, group.initial_values(a), &gradients.initial_values[at(a, D, 0)]);
  }
}

// The gradients through the final state's channel a: scale = log sum_u exp(..), sums = sum_u exp(.. - scale) v_u.
template <class Real>
void final_backward(const generic::LogAttentionBackward<Real>& op, const Group<Real>& group, i64 b, i64 g, i64 a,
                    SourceGradients<Real>& gradients) {
  using W = Wide<Real>;
  const i64 E = group.key_dim, D = group.value_dim, T = group.time;
  const Weights<Real> sources = channel_sources(group, a);
  if (sources.empty()) return;
  const W scale = total_of<Real>(sources);
  Sums<Real> mean(static_cast<size_t>(D));
  for (const auto& source : sources)
    for (i64 d = 0; d < D; ++d)
      mean[static_cast<size_t>(d)] += exp(source.logarithm - scale) * group.plain(source.values[d]);
  const auto pass = [&](const W& logarithm, const W* values, W& dkey, W* dvalues) {
    if (!present(logarithm)) return;
    const W weight = exp(logarithm - scale);
    W slope = wide(op.dfinal_scale(b, g, a));
    for (i64 d = 0; d < D; ++d) {
      const W dsum = wide(op.dfinal_sums(b, g, a, d)), value = group.plain(values[d]);
      slope += dsum * (value - mean[static_cast<size_t>(d)]);
      dvalues[d] += weight * dsum * (op.log_values ? value : W(1));
    }
    dkey += weight * slope;
  };
  for (i64 u = 0; u < T; ++u)
    pass(group.token(T - 1, u, a), group.values(u), gradients.keys[at(u, E, a)], &gradients.values[at(u, D, 0)]);
  if (group.has_initial())
    pass(group.initial(T - 1, a), group.initial_values(a), gradients.initial_keys[static_cast<size_t>(a)],
         &gradients.initial_values[at(a, D, 0)]);
}

// From the means' (or their logarithms') gradients to those of the scaled state.
template <class Real>
void initial_backward(const generic::LogAttentionBackward<Real>& op, i64 b, i64 g, i64 D,
                      const SourceGradients<Real>& gradients) {
  using W = Wide<Real>;
  for (i64 a = 0; a < op.k.shape(3); ++a) {
    const W mass = wide(op.initial_mass(b, g, a)), dkey = gradients.initial_keys[static_cast<size_t>(a)];
    const bool some = static_cast<double>(mass) > 0;
    W dmass = some ? dkey / mass : W(0);
    for (i64 d = 0; d < D; ++d) {
      // value = sums / mass, or log(sums / mass)
      const W dvalue = gradients.initial_values[at(a, D, d)], sum = wide(op.initial_sums(b, g, a, d));
      const W below = op.log_values ? sum : mass;
      const W dsum = some && static_cast<double>(below) != 0 ? dvalue / below : W(0);
      op.dinitial_sums(b, g, a, d) = static_cast<Real>(dsum);
      if (some) dmass += -(dsum * sum / mass);
    }
    op.dinitial_mass(b, g, a) = static_cast<Real>(dmass);
    op.dinitial_scale(b, g, a) = static_cast<Real>(dkey);
  }
}

}  // namespace

template <class Real>
void run(const generic::LogAttentionBackward<Real>& op) {
  using W = Wide<Real>;
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 T = time, H = heads, G = groups, E = key_dim, D = value_dim;
  parallel_dynamic(batch * G, [&](int, i64 index) {
    const i64 b = index / G, g = index % G;
    const Group<Real> group(op, b, g);
    SourceGradients<Real> gradients(group);
    Sums<Real> dq_of_group(at(T, E, 0));
    for (i64 h = g * H / G; h < (g + 1) * H / G; ++h)
      for (i64 t = 0; t < T; ++t) {
        Sums<Real> dq(static_cast<size_t>(E));
        query_backward(op, group, b, t, h, dq, gradients);
        store(dq, &op.dq(b, t, h, 0));
        for (i64 a = 0; a < E; ++a) dq_of_group[at(t, E, a)] += dq[static_cast<size_t>(a)];
      }
    for (i64 a = 0; !op.dfinal_sums.empty() && a < E; ++a) final_backward(op, group, b, g, a, gradients);
    for (i64 t = 0; t < T; ++t) {
      for (i64 a = 0; a < E; ++a) op.dk(b, t, g, a) = static_cast<Real>(gradients.keys[at(t, E, a)]);
      for (i64 d = 0; d < D; ++d) op.dv(b, t, g, d) = static_cast<Real>(gradients.values[at(t, D, d)]);
    }
    // dg_ta = sum_{n >= t} (dq_na - dk_na), and a final scale decays with every gate
    for (i64 a = 0; !op.dgate.empty() && a < E; ++a) {
      W sum = op.dfinal_scale.empty() ? W(0) : wide(op.dfinal_scale(b, g, a));
      for (i64 t = T; t-- > 0;) {
        sum += dq_of_group[at(t, E, a)] - gradients.keys[at(t, E, a)];
        op.dgate(b, t, g, a) = static_cast<Real>(sum);
      }
    }
    if (!op.dinitial_sums.empty()) initial_backward(op, b, g, D, gradients);
  });
}

template <class Real>
void run(const generic::LogAttentionStep<Real>& op) {
  using W = Wide<Real>;
  const auto [batch, time, heads, groups, key_dim, value_dim] = op.shape();
  const i64 H = heads, G = groups, E = key_dim, D = value_dim;
  const auto plain = [&](Real v) { return op.log_values ? exp(wide(v)) : wide(v); };
  for (i64 b = 0; b < batch; ++b)
    for (i64 g = 0; g < G; ++g) {
      for (i64 a = 0; a < E; ++a) {
        const W key = wide(op.k(b, g, a)), before = wide(op.scale(b, g, a));
        const W decayed = op.gate.empty() ? before : before + wide(op.gate(b, g, a));
        W scale = decayed, factor = 1;
        if (!present(decayed)) factor = 0;
        if (present(key) && (!present(decayed) || decayed + static_cast<double>(op.headroom) < key)) {
          factor = present(decayed) ? exp(decayed - key) : W(0);
          scale = key;
        }
        const W weight = present(key) ? exp(key - scale) : W(0);
        op.scale(b, g, a) = static_cast<Real>(scale);
        op.mass(b, g, a) = static_cast<Real>(wide(op.mass(b, g, a)) * factor + weight);
        for (i64 d = 0; d < D; ++d)
          op.sums(b, g, a, d) = static_cast<Real>(wide(op.sums(b, g, a, d)) * factor + weight * plain(op.v(b, g, d)));
      }
      for (i64 h = g * H / G; h < (g + 1) * H / G; ++h) {
        W largest = -infinity, mass = 0;
        for (i64 a = 0; a < E; ++a)
          if (const W place = wide(op.q(b, h, a)) + wide(op.scale(b, g, a)); largest < place) largest = place;
        Sums<Real> y(static_cast<size_t>(D));
        for (i64 a = 0; a < E; ++a) {
          if (!present(wide(op.scale(b, g, a)))) continue;
          const W weight = exp(wide(op.q(b, h, a)) + wide(op.scale(b, g, a)) - largest);
          mass += weight * wide(op.mass(b, g, a));
          add_scaled(y, weight, &op.sums(b, g, a, 0));
        }
        for (i64 d = 0; d < D; ++d) {
          W& sum = y[static_cast<size_t>(d)];
          sum = !(0 < static_cast<double>(mass)) ? W(0) : op.log_values ? log(sum) - log(mass) : sum / mass;
        }
        store(y, &op.y(b, h, 0));
        if (!op.lse.empty())
          op.lse(b, h) = static_cast<Real>(0 < static_cast<double>(mass) ? largest + log(mass) : largest);
      }
    }
}

template void run(const generic::LogAttention<float>&);
template void run(const generic::LogAttention<double>&);
template void run(const generic::LogAttention<Bounded>&);
template void run(const generic::LogAttentionBackward<float>&);
template void run(const generic::LogAttentionBackward<double>&);
template void run(const generic::LogAttentionBackward<Bounded>&);
template void run(const generic::LogAttentionStep<float>&);
template void run(const generic::LogAttentionStep<double>&);
template void run(const generic::LogAttentionStep<Bounded>&);

}  // namespace sparsam::reference
