// The ghost norm on a CPU: sum_{s,t} (u_s . u_t) (v_s . v_t) of each of B samples, for u [B, T, p] and v [B, T, d].
//
// Both Gram matrices are built block by block of positions, each block in tiles of 4 x 4 pairs, multiplied with one
// another and summed. Nothing is written but one number for each sample and block. Both are symmetric: what lies above
// the diagonal counts twice, and what lies below is not computed.
//
// A pair of positions is a dot product along their features, which lie next to each other in memory. So a tile takes
// one vector from each of its 4 + 4 positions, and a vector of partial sums stays in a register for each pair. These
// vectors are added up across by folding them into one another, which leaves one sum a lane. The lanes are in the same
// order for u and for v, and only sums over them are needed: they are never put in order.
//
// Tasks write apart and are summed in order, so the same input gives the same bits whatever the number of threads. No
// task reads two samples: what is not finite in one does not reach another.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

// Bytes of a vector, and of how many positions partial sums with 4 others fit into the registers.
#if defined(__AVX512F__)
constexpr int64_t kBytes = 64, kAtOnce = 4;
#elif defined(__AVX__)
constexpr int64_t kBytes = 32, kAtOnce = 2;
#else
constexpr int64_t kBytes = 16, kAtOnce = 4;
#endif

constexpr int64_t kTile = 4;
// Positions of a block, and features that are read of them at a time: 64 KB in float32.
constexpr int64_t kBlock = 32;
constexpr int64_t kDepth = 512;
constexpr int64_t kTiles = kBlock / kTile;

struct bfloat16 {
  uint16_t bits;
};

// Vectors of what is added up as it is stored.
template <typename scalar, typename index>
struct SameVector {
  using real = scalar;
  using integer = index;
  typedef scalar lanes __attribute__((vector_size(kBytes)));
  static lanes load(const scalar* x) {
    lanes loaded;
    std::memcpy(&loaded, x, kBytes);
    return loaded;
  }
};

// What is stored as T, as vectors of the type in which it is added up.
template <typename T>
struct Vector;

template <>
struct Vector<float> : SameVector<float, int32_t> {};

template <>
struct Vector<double> : SameVector<double, int64_t> {};

template <>
struct Vector<bfloat16> : Vector<float> {
  typedef uint16_t halves __attribute__((vector_size(kBytes / 2)));
  typedef uint32_t words __attribute__((vector_size(kBytes)));
  // A bfloat16 is the upper half of a float.
  static lanes load(const bfloat16* x) {
    halves loaded;
    std::memcpy(&loaded, x, kBytes / 2);
    return (lanes)(__builtin_convertvector(loaded, words) << 16);
  }
};

// One operand of one sample, [T, features].
template <typename T>
struct Operand {
  const T* data;
  int64_t stride, features;
};

template <typename T>
struct GhostNorm {
  using real = typename Vector<T>::real;
  using lanes = typename Vector<T>::lanes;
  typedef typename Vector<T>::integer indices __attribute__((vector_size(kBytes)));
  static constexpr int64_t kLanes = kBytes / sizeof(real);
  static constexpr int64_t kSums = kTile * kTile / kLanes;
  static_assert(kAtOnce * kTile % kLanes == 0, "partial sums must fold into whole vectors");

  // The Gram matrix of a block with another one, as the sums of each tile in no particular order.
  struct Block {
    lanes tiles[kTiles][kTiles][kSums];
  };

  static lanes load_part(const T* x, int64_t count) {
    T padded[kLanes] = {};
    std::memcpy(padded, x, count * sizeof(T));
    return Vector<T>::load(padded);
  }

  // Where lane i of a fold comes from in two vectors one after the other: of each run of 2 * half lanes, the lower or
  // the upper half, of a and then of b.
  static constexpr int64_t source(int64_t i, int64_t half, bool upper) {
    int64_t within = i % (2 * half);
    return i + (within < half ? 0 : kLanes - half) + (upper ? half : 0);
  }

  template <int64_t half, bool upper, int64_t... i>
  static lanes pick(lanes a, lanes b, std::integer_sequence<int64_t, i...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, source(i, half, upper)...);
#else
    return __builtin_shuffle(a, b, indices{source(i, half, upper)...});
#endif
  }

  template <int64_t half>
  static lanes fold(lanes a, lanes b) {
    using all = std::make_integer_sequence<int64_t, kLanes>;
    return pick<half, false>(a, b, all()) + pick<half, true>(a, b, all());
  }

  // The sums over all lanes of 2 * half vectors.
  template <int64_t half>
  static lanes sums_across(const lanes* x) {
    if constexpr (half == 1) {
      return fold<1>(x[0], x[1]);
    } else {
      return fold<half>(sums_across<half / 2>(x), sums_across<half / 2>(x + half));
    }
  }

  // Adds the dot products of kAtOnce positions with kTile others.
  static void add_products(const T* const* a, const T* const* b, int64_t depth, lanes* sums) {
    lanes partial[kAtOnce * kTile] = {};
    auto add = [&](auto load) {
      lanes of_a[kAtOnce];
#pragma GCC unroll 4
      for (int64_t i = 0; i < kAtOnce; i++) of_a[i] = load(a[i]);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kTile; j++) {
        const lanes of_b = load(b[j]);
#pragma GCC unroll 4
        for (int64_t i = 0; i < kAtOnce; i++) partial[j * kAtOnce + i] += of_a[i] * of_b;
      }
    };
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) add([=](const T* x) { return Vector<T>::load(x + k); });
    if (k < depth) add([=](const T* x) { return load_part(x + k, depth - k); });
#pragma GCC unroll 4
    for (int64_t s = 0; s < kAtOnce * kTile / kLanes; s++) sums[s] += sums_across<kLanes / 2>(partial + s * kLanes);
  }

  // The Gram matrix of positions [first, first + kBlock) with [second, second + kBlock); what lies beyond T is zero.
  static void multiply(const Operand<T>& x, int64_t length, int64_t first, int64_t second, Block& gram) {
    static const T zeros[kDepth] = {};
    std::memset(&gram, 0, sizeof(gram));
    for (int64_t k = 0; k < x.features; k += kDepth) {
      const auto tile_at = [&](int64_t position, const T** rows) {
        for (int64_t r = 0; r < kTile; r++) {
          rows[r] = position + r < length ? x.data + (position + r) * x.stride + k : zeros;
        }
      };
      const int64_t depth = std::min(kDepth, x.features - k);
      for (int64_t i = 0; i < kTiles && first + i * kTile < length; i++) {
        const T* a[kTile];
        tile_at(first + i * kTile, a);
        for (int64_t j = first == second ? i : 0; j < kTiles && second + j * kTile < length; j++) {
          const T* b[kTile];
          tile_at(second + j * kTile, b);
          for (int64_t r = 0; r < kTile; r += kAtOnce) add_products(a + r, b, depth, gram.tiles[i][j] + r * kTile / kLanes);
        }
      }
    }
  }

  // The sum over all pairs of a block with itself and with those before it, both ways round.
  static real pairs_of(const Operand<T>& u, const Operand<T>& v, int64_t length, int64_t block) {
    Block gram_u, gram_v;
    lanes once = {}, twice = {};
    for (int64_t earlier = 0; earlier <= block; earlier++) {
      multiply(u, length, earlier * kBlock, block * kBlock, gram_u);
      multiply(v, length, earlier * kBlock, block * kBlock, gram_v);
      for (int64_t i = 0; i < kTiles; i++) {
        for (int64_t j = 0; j < kTiles; j++) {
          lanes& total = earlier == block && i == j ? once : twice;
          for (int64_t s = 0; s < kSums; s++) total += gram_u.tiles[i][j][s] * gram_v.tiles[i][j][s];
        }
      }
    }
    const lanes all = once + twice + twice;
    real sum = 0;
    for (int64_t i = 0; i < kLanes; i++) sum += all[i];
    return sum;
  }
};

// sizes: B, T, p, d, then the strides of u's samples and positions, and of v's.
template <typename T>
void ghost_norm_sq(const T* u, const T* v, typename Vector<T>::real* norms, const int64_t* sizes, int threads) {
  const int64_t samples = sizes[0], length = sizes[1], blocks = (length + kBlock - 1) / kBlock;
  std::vector<typename Vector<T>::real> parts(samples * blocks);
  // A core that has all blocks of a sample reads it once.
  const int64_t chunk = samples < threads ? 1 : std::max<int64_t>(blocks, 1);
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
  for (int64_t task = 0; task < samples * blocks; task++) {
    const int64_t b = task / blocks;
    const Operand<T> of_u = {u + b * sizes[4], sizes[5], sizes[2]}, of_v = {v + b * sizes[6], sizes[7], sizes[3]};
    parts[task] = GhostNorm<T>::pairs_of(of_u, of_v, length, task % blocks);
  }
  for (int64_t b = 0; b < samples; b++) {
    norms[b] = 0;
    for (int64_t block = 0; block < blocks; block++) norms[b] += parts[b * blocks + block];
  }
}

}  // namespace

extern "C" {

void ghost_norm_sq_float32(const float* u, const float* v, float* norms, const int64_t* sizes, int threads) {
  ghost_norm_sq(u, v, norms, sizes, threads);
}

void ghost_norm_sq_float64(const double* u, const double* v, double* norms, const int64_t* sizes, int threads) {
  ghost_norm_sq(u, v, norms, sizes, threads);
}

void ghost_norm_sq_bfloat16(const void* u, const void* v, float* norms, const int64_t* sizes, int threads) {
  ghost_norm_sq(static_cast<const bfloat16*>(u), static_cast<const bfloat16*>(v), norms, sizes, threads);
}
}
