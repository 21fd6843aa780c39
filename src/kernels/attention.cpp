// Softmax attention, fused. The idea in three lines: the weights of one head and image fit into the
// second cache level, so they are made there, used, and forgotten; the backward pass makes them
// again from the logarithms of their row sums (Dao et al., arXiv 2205.14135), for a few percent of
// its time. Queries, keys and values are read in place from the joint projection, and gradients
// written there.
#include "kernels/attention.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/lanes.h"
#include "kernels/small_matrices.h"
#include "kernels/softmax_rows.h"
#include "tensor/meter.h"
#include "tensor/torch.h"

namespace rep {

namespace {

struct Shape {
  int64_t B, N, H, d, L;
  int64_t first, M;  // the queries: tokens first ... first + M - 1
  int64_t D() const { return H * d; }
  int64_t keys() const { return L + N; }
  int64_t wide() const { return padded(keys()); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(d)); }
  // Rows of weights made at a time: two buffers of 16 Ki floats and the packed factors stay cached.
  int64_t rows_at_a_time() const {
    const int64_t fit = std::max<int64_t>(24, 16384 / wide());
    const int64_t parts = (M + fit - 1) / fit;
    return ((M + parts - 1) / parts + 7) / 8 * 8;
  }
};

// Where one head's part of every token, or of every row of a prefix, begins in a batch.
struct Place {
  int64_t token, query;  // in qkv [B, N, 3 D]: of the head's first token, and of its first query
  int64_t out, sums;     // in [B, M, D]; in [B, H, M]
  int64_t key, value;    // in the prefix [B, 2, L, D]
  Place(const Shape& s, int64_t b, int64_t h)
      : token(b * s.N * 3 * s.D() + h * s.d),
        query(token + s.first * 3 * s.D()),
        out(b * s.M * s.D() + h * s.d),
        sums((b * s.H + h) * s.M),
        key(b * 2 * s.L * s.D() + h * s.d),
        value(key + s.L * s.D()) {}
};

// One thread's memory for a head.
struct Scratch {
  std::vector<float> weights, slopes, pairs, columns, rows, results, bias;
  float* of(std::vector<float>& v, int64_t size) {
    v.resize(static_cast<size_t>(size));
    return v.data();
  }
};

// The keys or values of one head, prefix first: [L + N, d].
template <class T>
struct Rows {
  NumberRows<T> prefix, tokens;
  // As the right factor of a product with d terms (a x^T), and with L + N terms (w x).
  void pack_as_columns(const Shape& s, float* panels) const {
    const int64_t k = words<T>(s.d);
    if (s.L > 0) rep::pack_as_columns(prefix.words(), s.L, k, 0, s.keys(), panels);
    rep::pack_as_columns(tokens.words(), s.N, k, s.L, s.keys(), panels);
  }
  void pack_as_rows(const Shape& s, float* panels) const {
    if (s.L > 0) pack(prefix, s.L, s.d, 0, s.keys(), panels);
    pack(tokens, s.N, s.d, s.L, s.keys(), panels);
  }
};

// What a head reads: its queries [M, d], keys and values [L + N, d].
template <class T>
struct Head {
  NumberRows<T> q;
  Rows<T> k, v;
  Head(const Shape& s, const Place& place, const T* qkv, const T* prefix)
      : q{qkv + place.query, 3 * s.D()},
        k{{prefix + place.key, s.D()}, {qkv + place.token + s.D(), 3 * s.D()}},
        v{{prefix + place.value, s.D()}, {qkv + place.token + 2 * s.D(), 3 * s.D()}} {}
};

// Results [rows, d] to where they belong.
template <class T>
void scatter_rows(const float* from, int64_t rows, int64_t d, T* to, int64_t to_row) {
  for (int64_t i = 0; i < rows; ++i, from += d, to += to_row) {
    if constexpr (std::is_same_v<T, float>) {
      std::copy_n(from, d, to);
    } else {
      dispatch_simd_for<T>([&](auto width) REP_ALWAYS_INLINE {
        using L = decltype(width);
        for (int64_t j = 0; j < d; j += L::kCount) store<L>(lanes<L>(from + j), to + j);
      });
    }
  }
}

// Of a type; a custom function takes defined tensors only: an empty one stands for none.
torch::Tensor or_empty(const torch::Tensor& t, torch::ScalarType type) {
  return t.defined() ? t.to(type).contiguous() : torch::empty({0}, type);
}

template <class T>
T* pointer(const torch::Tensor& t) {
  return t.defined() && t.numel() > 0 ? static_cast<T*>(t.data_ptr()) : nullptr;
}

// bias [B, L + N] of one image in whole panels, or null.
const float* widened(const float* bias, const Shape& s, int64_t b, Scratch& scratch) {
  if (!bias) return nullptr;
  float* out = scratch.of(scratch.bias, s.wide());
  std::copy_n(bias + b * s.keys(), s.keys(), out);
  std::fill(out + s.keys(), out + s.wide(), 0.0f);
  return out;
}

// Calls work(b, h, scratch) for every head of every image, on all threads.
template <class Work>
void for_each_head(const Shape& s, const Work& work) {
  at::parallel_for(0, s.B * s.H, 1, [&](int64_t begin, int64_t end) {
    thread_local Scratch scratch;
    for (int64_t i = begin; i < end; ++i) work(i / s.H, i % s.H, scratch);
  });
}

// Numbers of T are read and written, float or Bf16; logits, weights and sums are floats.

template <class T>
void attention_forward(const Shape& s, const T* qkv, const T* prefix, const float* biases, T* mixed,
                       float* sums) {
  const int64_t d = s.d, d_words = words<T>(d), keys = s.keys(), wide = s.wide();
  for_each_head(s, [&](int64_t b, int64_t h, Scratch& scratch) {
    const Place place(s, b, h);
    const Head<T> in(s, place, qkv, prefix);
    float* key_columns = scratch.of(scratch.columns, wide * d_words);
    float* value_rows = scratch.of(scratch.rows, words<T>(keys) * padded(d));
    in.k.pack_as_columns(s, key_columns);
    in.v.pack_as_rows(s, value_rows);
    const float* logits = widened(biases, s, b, scratch);
    const int64_t tile = s.rows_at_a_time();
    float* weights = scratch.of(scratch.weights, tile * wide);
    float* results = scratch.of(scratch.results, tile * d);
    for (int64_t i = 0; i < s.M; i += tile) {
      const int64_t rows = std::min(tile, s.M - i);
      multiply<T>(rows, keys, d_words, s.scale(), in.q.from(i).words(), key_columns, false, weights,
                  wide, /*whole_panels=*/true);
      softmax_rows<T>(weights, rows, keys, logits, sums + place.sums + i);
      multiply<T>(rows, d, words<T>(keys), 1, as_left<T>(weights, rows, wide), value_rows, false,
                  results, d);
      scatter_rows(results, rows, d, mixed + place.out + i * s.D(), s.D());
    }
  });
}

// d_qkv and d_prefix: null where not wanted.
template <class T>
void attention_backward(const Shape& s, const T* qkv, const T* prefix, const float* biases,
                        const float* sums, const T* d_mixed, T* d_qkv, T* d_prefix) {
  const int64_t d = s.d, d_words = words<T>(d), keys = s.keys(), wide = s.wide(), D = s.D();
  const int64_t first = d_prefix ? 0 : s.L, wanted = (d_qkv ? keys : s.L) - first;  // of the keys
  for_each_head(s, [&](int64_t b, int64_t h, Scratch& scratch) {
    const Place place(s, b, h);
    const Head<T> in(s, place, qkv, prefix);
    const NumberRows<T> d_out{d_mixed + place.out, D};
    const float* logits = widened(biases, s, b, scratch);
    const int64_t tile = s.rows_at_a_time(), columns = wide * d_words;
    float* key_columns = scratch.of(scratch.columns, 2 * columns);
    float* value_columns = key_columns + columns;
    float* key_rows = scratch.of(scratch.rows, (words<T>(keys) + words<T>(tile)) * padded(d));
    float* tile_rows = key_rows + words<T>(keys) * padded(d);
    float* weights = scratch.of(scratch.weights, tile * wide);
    float* slopes = scratch.of(scratch.slopes, tile * wide);
    float* pairs = scratch.of(scratch.pairs, words<T>(tile) * wide);
    float* d_keys = scratch.of(scratch.results, (2 * wanted + tile) * d);
    float* d_values = d_keys + wanted * d;
    float* d_queries = d_values + wanted * d;
    in.k.pack_as_columns(s, key_columns);
    in.v.pack_as_columns(s, value_columns);
    if (d_qkv) in.k.pack_as_rows(s, key_rows);
    for (int64_t i = 0; i < s.M; i += tile) {
      const int64_t rows = std::min(tile, s.M - i);
      // x [wanted, d] += alpha w^T a of this tile's rows
      const auto to_keys = [&](float alpha, const float* w, const NumberRows<T>& a, float* x) {
        pack(a, rows, d, 0, rows, tile_rows);
        multiply<T>(wanted, d, words<T>(rows), alpha,
                    as_left_transposed<T>(w, rows, wide, pairs).from(first), tile_rows, i > 0, x,
                    d);
      };
      multiply<T>(rows, keys, d_words, s.scale(), in.q.from(i).words(), key_columns, false, weights,
                  wide, true);
      softmax_rows_again<T>(weights, rows, keys, logits, sums + place.sums + i);
      multiply<T>(rows, keys, d_words, 1, d_out.from(i).words(), value_columns, false, slopes, wide,
                  true);
      to_keys(1, weights, d_out.from(i), d_values);
      softmax_rows_backward(weights, slopes, rows, keys);
      to_keys(s.scale(), slopes, in.q.from(i), d_keys);
      if (d_qkv) {
        multiply<T>(rows, d, words<T>(keys), s.scale(), as_left<T>(slopes, rows, wide), key_rows,
                    false, d_queries, d);
        scatter_rows(d_queries, rows, d, d_qkv + place.query + i * 3 * D, 3 * D);
      }
    }
    if (d_prefix) {
      scatter_rows(d_keys, s.L, d, d_prefix + place.key, D);
      scatter_rows(d_values, s.L, d, d_prefix + place.value, D);
    }
    if (d_qkv) {
      const int64_t skip = (s.L - first) * d;
      scatter_rows(d_keys + skip, s.N, d, d_qkv + place.token + D, 3 * D);
      scatter_rows(d_values + skip, s.N, d, d_qkv + place.token + 2 * D, 3 * D);
    }
  });
}

// Calls work(T{}) with the type of t's numbers.
template <class Work>
void on_type_of(const torch::Tensor& t, const Work& work) {
  t.scalar_type() == torch::kFloat ? work(float{}) : work(Bf16{});
}

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  // prefix [B, 2, L, D] or empty, of qkv's type; bias [B, L + N] or empty
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& qkv,
                               const torch::Tensor& prefix, const torch::Tensor& bias,
                               int64_t heads, int64_t first_query, int64_t queries) {
    const Shape s = shape(qkv, prefix, heads, first_query, queries);
    const torch::Tensor out = torch::empty({s.B, s.M, s.D()}, qkv.options());
    const torch::Tensor lse = torch::empty({s.B, s.H, s.M}, bias.options());
    on_type_of(qkv, [&](auto number) {
      using T = decltype(number);
      attention_forward(s, pointer<T>(qkv), pointer<T>(prefix), pointer<float>(bias),
                        pointer<T>(out), pointer<float>(lse));
    });
    count_macs(2 * s.B * s.H * s.M * s.keys() * s.d);
    ctx->save_for_backward({qkv, prefix, bias, lse});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["first"] = first_query;
    ctx->saved_data["tokens"] = qkv.requires_grad();
    ctx->saved_data["prefix"] = prefix.requires_grad();
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &qkv = saved[0], &prefix = saved[1], &bias = saved[2], &lse = saved[3];
    const Shape s = shape(qkv, prefix, ctx->saved_data["heads"].toInt(),
                          ctx->saved_data["first"].toInt(), lse.size(2));
    const torch::Tensor grad = grads[0].contiguous();
    torch::Tensor d_qkv, d_prefix;
    if (ctx->saved_data["tokens"].toBool()) d_qkv = torch::empty_like(qkv);
    if (d_qkv.defined() && s.M < s.N) d_qkv.narrow(2, 0, s.D()).zero_();  // of the other queries
    if (ctx->saved_data["prefix"].toBool()) d_prefix = torch::empty_like(prefix);
    on_type_of(qkv, [&](auto number) {
      using T = decltype(number);
      attention_backward(s, pointer<T>(qkv), pointer<T>(prefix), pointer<float>(bias),
                         pointer<float>(lse), pointer<T>(grad), pointer<T>(d_qkv),
                         pointer<T>(d_prefix));
    });
    // The method's work: making the weights again is this implementation's choice.
    const int64_t terms =
        s.keys() + (d_qkv.defined() ? s.keys() + 2 * s.N : 0) + (d_prefix.defined() ? 2 * s.L : 0);
    count_macs(s.B * s.H * s.M * s.d * terms);
    return {d_qkv, d_prefix, {}, {}, {}, {}};
  }

 private:
  static Shape shape(const torch::Tensor& qkv, const torch::Tensor& prefix, int64_t heads,
                     int64_t first_query, int64_t queries) {
    return {qkv.size(0),
            qkv.size(1),
            heads,
            qkv.size(2) / 3 / heads,
            prefix.dim() == 4 ? prefix.size(2) : 0,
            first_query,
            queries};
  }
};

// Whether the fused attention takes numbers of this type, in heads of d.
bool fits_fused(const torch::Tensor& qkv, int64_t d) {
  if (!qkv.is_cpu() || !lanes_are_fast()) return false;
  return qkv.scalar_type() == torch::kFloat ||
         (qkv.scalar_type() == torch::kBFloat16 && pairs_are_fast() && d % kMaxLanes == 0);
}

struct Heads {
  torch::Tensor q, k, v, bias;  // [B, H, M, d], [B, H, L + N, d] twice; undefined or [B, L + N]
};

torch::Tensor with_prefix_zeros(const torch::Tensor& log_sizes, const torch::Tensor& prefix) {
  if (!log_sizes.defined() || !prefix.defined()) return log_sizes;
  return torch::cat(
      {torch::zeros({log_sizes.size(0), prefix.size(2)}, log_sizes.options()), log_sizes}, 1);
}

Heads split(const torch::Tensor& qkv, int64_t heads, const torch::Tensor& prefix,
            const torch::Tensor& log_sizes, TokenRange queries) {
  const int64_t B = qkv.size(0), N = qkv.size(1), d = qkv.size(2) / 3 / heads;
  const torch::Tensor parts = qkv.view({B, N, 3, heads, d}).permute({2, 0, 3, 1, 4});
  Heads out{parts[0].narrow(2, queries.first, queries.count), parts[1], parts[2],
            with_prefix_zeros(log_sizes, prefix)};
  if (prefix.defined()) {
    const torch::Tensor rows =
        prefix.view({B, 2, prefix.size(2), heads, d}).permute({1, 0, 3, 2, 4});
    out.k = torch::cat({rows[0], out.k}, 2);
    out.v = torch::cat({rows[1], out.v}, 2);
  }
  return out;
}

torch::Tensor join(const torch::Tensor& mixed) {  // [B, H, M, d] -> [B, M, D]
  return mixed.transpose(1, 2).flatten(2);
}

TokenRange named(TokenRange queries, const torch::Tensor& qkv) {
  return queries.count > 0 ? queries : TokenRange{0, qkv.size(1)};
}

torch::Tensor op_by_op(const Heads& in) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(in.q.size(-1)));
  torch::Tensor weights = torch::matmul(in.q * scale, in.k.transpose(-2, -1));
  if (in.bias.defined()) weights = weights + in.bias.unsqueeze(1).unsqueeze(1);
  return join(torch::matmul(weights.softmax(-1), in.v));
}

}  // namespace

torch::Tensor attend(const torch::Tensor& qkv, int64_t heads, const torch::Tensor& prefix,
                     const torch::Tensor& log_sizes, TokenRange queries) {
  queries = named(queries, qkv);
  const auto type = qkv.scalar_type();
  const torch::Tensor before = prefix.defined() ? prefix.to(type) : prefix;
  if (fits_fused(qkv, qkv.size(2) / 3 / heads)) {
    return FusedAttention::apply(qkv.contiguous(), or_empty(before, type),
                                 or_empty(with_prefix_zeros(log_sizes, before), torch::kFloat),
                                 heads, queries.first, queries.count);
  }
#if TORCH_VERSION_MAJOR >= 2
  if (qkv.is_cuda()) {
    const Heads in = split(qkv, heads, before, log_sizes, queries);
    c10::optional<torch::Tensor> mask;
    if (in.bias.defined()) mask = in.bias.unsqueeze(1).unsqueeze(1).to(type);
    return join(torch::scaled_dot_product_attention(in.q, in.k, in.v, mask));
  }
#endif
  if (type == torch::kBFloat16) {
    return attend(qkv.to(torch::kFloat), heads, prefix, log_sizes, queries).to(type);
  }
  return op_by_op(split(qkv, heads, before, log_sizes, queries));
}

}  // namespace rep
