// Products of bfloat16 matrices for x86-64 processors that multiply them (AVX512_BF16), in the place of llama.cpp's.
//
// llama.cpp asks `llamafile_sgemm`, which its library exports, for every product. A library that is loaded before it
// with the same name is asked instead. Ours takes what it is made for and hands on the rest.
//
// llama.cpp's own kernel adds up each value in sixteen parts, which for the short rows of a small model takes as long
// as the products. Here a vector holds sixteen texts' tokens and every lane has its own sum, so that nothing is left to
// be added up, and weights are read once, in the order in which they lie. From two tokens on a value does not depend on
// how many there are: every lane sums in the same order.

#include <atomic>

#include "lanes.h"

namespace {

using Product = bool (*)(const Thread *, int64_t, int64_t, int64_t, const void *, int64_t, const void *, int64_t,
                         void *, int64_t, int, int, int);

constexpr int F32 = 0, BF16 = 30;                // as in ggml.h
constexpr int MOST_TOKENS = 64, DEEPEST = 8192;  // of a pass over the weights; of a row
constexpr int PAIRS = 16;                        // two neighbours in a row are multiplied at a time
constexpr int AHEAD = 16;                        // rows of weights that are fetched before they are needed

Product original = nullptr;
std::atomic<bool> in_use{false};
std::atomic<int64_t> taken{0};

alignas(64) thread_local uint32_t tokens[MOST_TOKENS * DEEPEST / 2];  // pair by pair, each of all tokens
alignas(64) thread_local float sums[LANES * MOST_TOKENS];             // of 16 rows of weights, row by row

// Bring up to 16 * Groups tokens into `tokens`; lanes without one are zero.
template <int Groups>
void gather(int64_t count, int64_t depth, const uint16_t *from, int64_t stride) {
    for (int64_t pair = 0; pair < depth / 2; pair += PAIRS)
        for (int group = 0; group < Groups; group++) {
            __m512i some[16];
            for (int i = 0; i < 16; i++) {
                const int64_t token = group * LANES + i;
                some[i] = token < count ? _mm512_loadu_si512(from + token * stride + 2 * pair) : _mm512_setzero_si512();
            }
            transpose(some);
            for (int i = 0; i < 16; i++)
                _mm512_store_si512(tokens + ((pair + i) * Groups + group) * LANES, some[i]);
        }
}

// So many rows of weights times all tokens; the sums stay in registers.
template <int Groups, int Rows>
inline void multiply(int64_t depth, const uint16_t *weights, int64_t stride, float *out) {
    __m512 sum[Rows][Groups];
    for (int row = 0; row < Rows; row++)
        for (int group = 0; group < Groups; group++) sum[row][group] = _mm512_setzero_ps();
    for (int64_t pair = 0; pair < depth / 2; pair++) {
        if (pair % PAIRS == 0)  // a line of the cache, long before its turn
            for (int row = 0; row < Rows; row++) _mm_prefetch(weights + (AHEAD + row) * stride + 2 * pair, _MM_HINT_T1);
        __m512bh right[Groups];
        for (int group = 0; group < Groups; group++)
            right[group] = (__m512bh)_mm512_load_si512(tokens + (pair * Groups + group) * LANES);
        for (int row = 0; row < Rows; row++) {
            int32_t two;
            std::memcpy(&two, weights + row * stride + 2 * pair, sizeof two);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(two);
            for (int group = 0; group < Groups; group++)
                sum[row][group] = _mm512_dpbf16_ps(sum[row][group], left, right[group]);
        }
    }
    for (int row = 0; row < Rows; row++)
        for (int group = 0; group < Groups; group++)
            _mm512_store_ps(out + (row * Groups + group) * LANES, sum[row][group]);
}

// All rows of weights of this thread for up to 16 * Groups tokens, so many rows at a time (a divisor of 16).
template <int Groups, int Rows>
void pass(int64_t count, int64_t rows, int64_t depth, const uint16_t *weights, int64_t weight_stride,
          const uint16_t *from, int64_t stride, float *out, int64_t out_stride) {
    gather<Groups>(count, depth, from, stride);
    for (int64_t row = 0; row < rows; row += LANES) {
        for (int done = 0; done < LANES; done += Rows)
            multiply<Groups, Rows>(depth, weights + (row + done) * weight_stride, weight_stride,
                                   sums + done * Groups * LANES);
        for (int group = 0; group < Groups; group++) {
            __m512i some[16];
            for (int i = 0; i < 16; i++) some[i] = _mm512_load_si512(sums + (i * Groups + group) * LANES);
            transpose(some);
            for (int i = 0; i < 16 && group * LANES + i < count; i++)
                _mm512_storeu_si512(out + (group * LANES + i) * out_stride + row, some[i]);
        }
    }
}

}  // namespace

extern "C" {

// Whom to hand on to.
void matmul_original(Product function) { original = function; }

void matmul_use(bool on) { in_use = on; }

// How many products were taken.
int64_t matmul_taken() { return taken; }

// out[token][row] = the product of weights[row] and from[token], of `depth` values each; strides in values.
bool llamafile_sgemm(const Thread *thread, int64_t rows, int64_t count, int64_t depth, const void *weights,
                     int64_t weight_stride, const void *from, int64_t stride, void *out, int64_t out_stride,
                     int weight_type, int type, int out_type) {
    if (!in_use || weight_type != BF16 || type != BF16 || out_type != F32 || count < 2 || rows % LANES ||
        depth % (2 * PAIRS) || depth > DEEPEST)
        return original && original(thread, rows, count, depth, weights, weight_stride, from, stride, out, out_stride,
                                    weight_type, type, out_type);
    const int64_t blocks = rows / LANES;
    const int64_t first = blocks * thread->number / thread->count * LANES;
    const int64_t mine = blocks * (thread->number + 1) / thread->count * LANES - first;
    const auto *left = static_cast<const uint16_t *>(weights) + first * weight_stride;
    for (int64_t token = 0; token < count && mine; token += MOST_TOKENS) {
        const int64_t some = count - token < MOST_TOKENS ? count - token : MOST_TOKENS;
        const auto *right = static_cast<const uint16_t *>(from) + token * stride;
        auto *to = static_cast<float *>(out) + token * out_stride + first;
        if (some > 48) pass<4, 4>(some, mine, depth, left, weight_stride, right, stride, to, out_stride);
        else if (some > 32) pass<3, 8>(some, mine, depth, left, weight_stride, right, stride, to, out_stride);
        else if (some > 16) pass<2, 8>(some, mine, depth, left, weight_stride, right, stride, to, out_stride);
        else pass<1, 16>(some, mine, depth, left, weight_stride, right, stride, to, out_stride);
    }
    taken += thread->number == 0;
    return true;
}
}
