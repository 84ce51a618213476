// The ghost norm on a CPU: sum_{s,t} (u_s . u_t) (v_s . v_t) of each of B samples, for u [B, T, p] and v [B, T, d], a
// bound on how far it is from that, and an upper bound of sum_t |u_t| |v_t|.
//
// Both Gram matrices are built block by block of positions, each block in tiles of 4 x 4 pairs, multiplied with one
// another and summed. Nothing is written but a few numbers for each position and block. Both are symmetric: what lies
// above the diagonal counts twice, and what lies below is not computed.
//
// A pair of positions is a dot product along their features, which lie next to each other in memory. So a tile takes
// one vector from each of its 4 + 4 positions, and a vector of partial sums stays in a register for each pair. These
// vectors are added up across by folding them into one another, which leaves one sum a lane: that of pair i in lane i.
//
// Rounding. A lane adds up kDepth / kLanes products one after the other, and is folded log2(kLanes) times; all further
// sums are in double precision. So each product passes through at most kChain roundings, and a dot product x_s . x_t is
// off by at most g |x_s| |x_t|, with g = kChain e / (1 - kChain e) and e half the distance of 1 to the next number
// (Higham 2002, section 3.1, and Cauchy and Schwarz). Underflow adds at most `kTiny` for each product, which the square
// roots |x_t| below are enlarged by: g sqrt(|x_s|^2 + f) sqrt(|x_t|^2 + f) >= g |x_s| |x_t| + g f. With a_t and b_t for
// these of u and v, and U and V for computed products, a pair's term is off by at most
//   g (|U| b_s b_t + a_s a_t |V|) + g^2 a_s a_t b_s b_t,
// and their sum, of T^2 terms in double precision in whatever order, by T^2 e' |U V| for each more.
//
// Tasks write apart and are summed in order, so the same input gives the same bits whatever the number of threads. No
// task reads two samples: what is not finite in one does not reach another.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
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
constexpr int64_t kPairs = kTile * kTile;
// Positions of a block, and features that are read of them at a time: 64 KB in float32.
constexpr int64_t kBlock = 32;
constexpr int64_t kDepth = 512;
constexpr int64_t kTiles = kBlock / kTile;

// One number in double precision for each pair of a tile.
typedef double pairs __attribute__((vector_size(kPairs * sizeof(double))));

pairs magnitude(pairs x) { return x < 0 ? -x : x; }

double sum_of(pairs x) {
  double sum = 0;
  for (int64_t i = 0; i < kPairs; i++) sum += x[i];
  return sum;
}

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
  static bool is_zero(scalar x) { return x == 0; }
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
  static bool is_zero(bfloat16 x) { return (x.bits & 0x7fff) == 0; }
};

// One operand of one sample, [T, features].
template <typename T>
struct Operand {
  const T* data;
  int64_t stride, features;
};

// A sum and the bound on its error, of which some pairs count once and the others twice.
struct Certified {
  double value, error;
};

// The sizes a_t and b_t of the positions of one sample.
struct Sizes {
  double *u, *v;
};

constexpr int64_t log2_of(int64_t x) { return x == 1 ? 0 : 1 + log2_of(x / 2); }

template <typename T>
struct GhostNorm {
  using real = typename Vector<T>::real;
  using lanes = typename Vector<T>::lanes;
  typedef typename Vector<T>::integer indices __attribute__((vector_size(kBytes)));
  typedef double doubles __attribute__((vector_size(kBytes / sizeof(real) * sizeof(double))));
  static constexpr int64_t kLanes = kBytes / sizeof(real);
  static constexpr int64_t kSums = kPairs / kLanes;
  static_assert(kAtOnce * kTile % kLanes == 0, "partial sums must fold into whole vectors");

  // Roundings of a product on its way into its sum, one more for those in double precision, and what they come to.
  static constexpr int64_t kChain = kDepth / kLanes + log2_of(kLanes) + 2;
  static constexpr double kHalfUlp = std::numeric_limits<real>::epsilon() / 2;
  static constexpr double kGamma = kChain * kHalfUlp / (1 - kChain * kHalfUlp);
  static constexpr double kTiny = std::numeric_limits<real>::min();

  // The Gram matrix of a block with another one, tile by tile.
  struct Block {
    pairs tiles[kTiles][kTiles];
  };

  // Positions of a pair within its tile.
  static constexpr int64_t first_of(int64_t pair) { return pair / (kAtOnce * kTile) * kAtOnce + pair % kAtOnce; }
  static constexpr int64_t second_of(int64_t pair) { return pair / kAtOnce % kTile; }

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
  static void add_products(const T* const* a, const T* const* b, int64_t depth, double* sums) {
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
    for (int64_t s = 0; s < kAtOnce * kTile / kLanes; s++) {
      doubles sum;
      std::memcpy(&sum, sums + s * kLanes, sizeof(sum));
      sum += __builtin_convertvector(sums_across<kLanes / 2>(partial + s * kLanes), doubles);
      std::memcpy(sums + s * kLanes, &sum, sizeof(sum));
    }
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
          double* sums = reinterpret_cast<double*>(&gram.tiles[i][j]);
          for (int64_t r = 0; r < kTile; r += kAtOnce) add_products(a + r, b, depth, sums + r * kTile);
        }
      }
    }
  }

  // The sizes of the positions of a block, from its Gram matrix with itself. Of zeros, it is zero.
  static void measure(const Operand<T>& x, const Block& gram, int64_t length, int64_t first, double* sizes) {
    const double lost = x.features * kTiny, floor = 2 * lost + lost / kGamma;
    for (int64_t i = 0; i < kTiles && first + i * kTile < length; i++) {
      for (int64_t pair = 0; pair < kPairs; pair++) {
        const int64_t position = first + i * kTile + first_of(pair);
        if (first_of(pair) != second_of(pair) || position >= length) continue;
        const double squared = gram.tiles[i][i][pair];
        const bool zero = squared == 0 && is_zero(x.data + position * x.stride, x.features);
        sizes[position] = zero ? 0 : std::sqrt(squared * (1 + 3 * kGamma) + floor);
      }
    }
  }

  static bool is_zero(const T* x, int64_t count) {
    return std::all_of(x, x + count, [](const T& element) { return Vector<T>::is_zero(element); });
  }

  // The sizes of a tile's positions, one for each of its pairs.
  template <bool of_second>
  static pairs sizes_at(const double* sizes, int64_t position, int64_t length) {
    pairs found = {};
    for (int64_t pair = 0; pair < kPairs; pair++) {
      const int64_t at = position + (of_second ? second_of(pair) : first_of(pair));
      found[pair] = at < length ? sizes[at] : 0;
    }
    return found;
  }

  // The sum over all pairs of two blocks, both ways round. Of a block with itself, it measures the positions first.
  static Certified pairs_of(const Operand<T>& u, const Operand<T>& v, int64_t length, int64_t first, int64_t second,
                            const Sizes& sizes) {
    Block gram_u, gram_v;
    multiply(u, length, first, second, gram_u);
    multiply(v, length, first, second, gram_v);
    if (first == second) {
      measure(u, gram_u, length, first, sizes.u);
      measure(v, gram_v, length, first, sizes.v);
    }
    const double terms = static_cast<double>(length) * length * std::numeric_limits<double>::epsilon();
    pairs a[kTiles], b[kTiles];
    for (int64_t j = 0; j < kTiles; j++) {
      a[j] = sizes_at<true>(sizes.u, second + j * kTile, length);
      b[j] = sizes_at<true>(sizes.v, second + j * kTile, length);
    }
    pairs value[2] = {}, error[2] = {};
    for (int64_t i = 0; i < kTiles && first + i * kTile < length; i++) {
      const pairs a_i = sizes_at<false>(sizes.u, first + i * kTile, length);
      const pairs b_i = sizes_at<false>(sizes.v, first + i * kTile, length);
      for (int64_t j = first == second ? i : 0; j < kTiles && second + j * kTile < length; j++) {
        const bool twice = first != second || i != j;
        const pairs of_u = gram_u.tiles[i][j], of_v = gram_v.tiles[i][j], term = of_u * of_v;
        const pairs around_u = kGamma * (a_i * a[j]), around_v = kGamma * (b_i * b[j]);
        value[twice] += term;
        error[twice] += magnitude(of_u) * around_v + around_u * (magnitude(of_v) + around_v) + terms * magnitude(term);
      }
    }
    return {sum_of(value[0] + 2 * value[1]), sum_of(error[0] + 2 * error[1])};
  }
};

// sizes: B, T, p, d, then the strides of u's samples and positions, and of v's. found: [3, B].
template <typename T>
void ghost_norm_sq(const T* u, const T* v, double* found, const int64_t* sizes, int threads) {
  const int64_t samples = sizes[0], length = sizes[1], blocks = (length + kBlock - 1) / kBlock;
  std::vector<double> of_positions(2 * samples * length);
  std::vector<Certified> parts(samples * blocks);
  const auto add = [&](int64_t b, int64_t first, int64_t second) {
    const Operand<T> of_u = {u + b * sizes[4], sizes[5], sizes[2]}, of_v = {v + b * sizes[6], sizes[7], sizes[3]};
    double* positions = of_positions.data() + 2 * b * length;
    const Certified part =
        GhostNorm<T>::pairs_of(of_u, of_v, length, first * kBlock, second * kBlock, {positions, positions + length});
    Certified& sum = parts[b * blocks + second];
    sum = {sum.value + part.value, sum.error + part.error};
  };
  const auto with_itself = [&](int64_t task) { add(task / blocks, task % blocks, task % blocks); };
  const auto with_earlier = [&](int64_t task) {
    for (int64_t first = 0; first < task % blocks; first++) add(task / blocks, first, task % blocks);
  };
  if (samples < threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < samples * blocks; task++) with_itself(task);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < samples * blocks; task++) with_earlier(task);
  } else {
    // A core that has all blocks of a sample reads it from memory once.
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t b = 0; b < samples; b++) {
      for (int64_t task = b * blocks; task < (b + 1) * blocks; task++) with_itself(task);
      for (int64_t task = b * blocks; task < (b + 1) * blocks; task++) with_earlier(task);
    }
  }
  for (int64_t b = 0; b < samples; b++) {
    Certified sum = {0, 0};
    for (int64_t block = 0; block < blocks; block++) {
      const Certified& part = parts[b * blocks + block];
      sum = {sum.value + part.value, sum.error + part.error};
    }
    const double *of_u = of_positions.data() + 2 * b * length, *of_v = of_u + length;
    found[b] = sum.value;
    found[samples + b] = sum.error;
    found[2 * samples + b] = std::inner_product(of_u, of_v, of_v, 0.0);
  }
}

}  // namespace

extern "C" {

void ghost_norm_sq_float32(const float* u, const float* v, double* found, const int64_t* sizes, int threads) {
  ghost_norm_sq(u, v, found, sizes, threads);
}

void ghost_norm_sq_float64(const double* u, const double* v, double* found, const int64_t* sizes, int threads) {
  ghost_norm_sq(u, v, found, sizes, threads);
}

void ghost_norm_sq_bfloat16(const void* u, const void* v, double* found, const int64_t* sizes, int threads) {
  ghost_norm_sq(static_cast<const bfloat16*>(u), static_cast<const bfloat16*>(v), found, sizes, threads);
}
}
