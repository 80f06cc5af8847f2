// Attention for x86-64 processors with AVX-512, in the place of llama.cpp's.
//
// llama.cpp asks `ggml_compute_forward_flash_attn_ext`, which its library exports. It has two ways of its own: one goes
// through the cells of the cache one by one, the other, from 64 rows on, in tiles of which most are masked where many
// short texts share a pass, and which cut a text wherever it lies.
//
// Here the cells that a row sees are listed first, and only they are touched. Rows that follow each other in a text see
// the same cells and their own, so they and all heads that share keys are worked on together: sixteen cells in a vector
// for the scores, sixteen dimensions in a vector for the values. Which cells share a vector is told by their place in
// the list of the row alone, so no value depends on other rows, on the number of threads, or on where a text lies.

#include <atomic>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace {

// ggml_tensor of the pinned release.
struct Tensor {
    int32_t type;
    void *buffer;
    int64_t size[4];
    uint64_t stride[4];  // in bytes
    int32_t operation, params[16], flags;
    Tensor *source[10], *viewed;
    uint64_t offset;
    char *data;
};

using Attention = void (*)(const Thread *, Tensor *);

constexpr int F32 = 0, F16 = 1;                 // as in ggml.h
constexpr int BLOCK = 16, TILE = 8;             // rows that a thread takes at a time; that are worked on together
constexpr int DEEPEST = 256, MOST_SHARED = 16;  // of a head; heads with the same keys
constexpr int SCORED = 12, SUMMED = 6;          // queries at a time, so that all sums stay in registers
constexpr int QUERIES = TILE * MOST_SHARED;
constexpr int CELLS = 64, WIDTH = 64;           // whose values, and how many of each, are worked on at a time
constexpr uint16_t HIDDEN = 0xfc00;             // minus infinity

Attention original = nullptr;
std::atomic<bool> in_use{false};
std::atomic<int64_t> taken{0};

struct Scratch {
    alignas(64) float queries[QUERIES * DEEPEST];  // each padded to the depth that the code was made for
    alignas(64) float keys[DEEPEST * LANES];       // of sixteen cells, dimension by dimension
    alignas(64) float values[CELLS * WIDTH];       // of some cells, row by row
    alignas(64) float sums[QUERIES * WIDTH];       // of some dimensions, over all cells so far
    std::vector<float> scores;                     // of every query a row
    std::vector<int32_t> cells, next;              // that the last row of a tile sees, and the row behind it
};

thread_local Scratch own;

inline __mmask16 lanes(int64_t count) {
    return count >= LANES ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// e to the power of values that are not above zero.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);  // in this order what is no number stays none
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    for (const float factor : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(factor));
    p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// The cells that a row sees, in order.
void list(const uint16_t *mask, int64_t cells, std::vector<int32_t> &seen) {
    seen.resize(cells + 2 * LANES);
    int32_t *end = seen.data();
    const __m512i counting = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t cell = 0; cell < cells; cell += 2 * LANES) {
        const __mmask32 there = cells - cell >= 2 * LANES ? ~0u : (1u << (cells - cell)) - 1;
        const __m512i some = _mm512_maskz_loadu_epi16(there, mask + cell);
        const __mmask32 visible = _mm512_mask_cmpneq_epu16_mask(there, some, _mm512_set1_epi16(HIDDEN));
        for (int half = 0; half < 2 && visible; half++) {
            const auto part = static_cast<__mmask16>(visible >> (half * LANES));
            const __m512i numbers = _mm512_add_epi32(counting, _mm512_set1_epi32(cell + half * LANES));
            _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(part, numbers));
            end += __builtin_popcount(part);
        }
    }
    seen.resize(end - seen.data());
}

// Bring up to sixteen cells into the processor's cache: they lie too far apart for it to see them come.
inline void fetch(const char *from, uint64_t stride, int64_t depth, const int32_t *cells, int64_t cell, int64_t count) {
    for (int64_t end = cell + LANES < count ? cell + LANES : count; cell < end; cell++)
        for (int64_t byte = 0; byte < 2 * depth; byte += 64)
            _mm_prefetch(from + cells[cell] * stride + byte, _MM_HINT_T0);
}

// Keys of up to sixteen cells, dimension by dimension; lanes and dimensions that are not there are zero.
template <int Depth>
void gather(const char *keys, uint64_t stride, int64_t depth, const int32_t *cells, int64_t count, float *out) {
    for (int64_t from = 0; from < Depth; from += LANES) {
        const __mmask16 there = lanes(depth - from);
        __m512i some[16];
        for (int i = 0; i < 16; i++)
            some[i] = i < count ? _mm512_castps_si512(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(
                                      there, keys + cells[i] * stride + 2 * from)))
                                : _mm512_setzero_si512();
        transpose(some);
        for (int i = 0; i < 16; i++) _mm512_store_si512(out + (from + i) * LANES, some[i]);
    }
}

// Scores of so many queries for sixteen cells; two sums each, as one would wait for itself.
template <int Depth, int Count>
inline void score(const float *keys, const float *queries, float scale, float *out, int64_t stride) {
    __m512 even[Count], odd[Count];
    for (int i = 0; i < Count; i++) even[i] = odd[i] = _mm512_setzero_ps();
    for (int d = 0; d < Depth; d += 2) {
        const __m512 first = _mm512_load_ps(keys + d * LANES), second = _mm512_load_ps(keys + (d + 1) * LANES);
        for (int i = 0; i < Count; i++) {
            even[i] = _mm512_fmadd_ps(first, _mm512_set1_ps(queries[i * Depth + d]), even[i]);
            odd[i] = _mm512_fmadd_ps(second, _mm512_set1_ps(queries[i * Depth + d + 1]), odd[i]);
        }
    }
    for (int i = 0; i < Count; i++)
        _mm512_store_ps(out + i * stride, _mm512_mul_ps(_mm512_add_ps(even[i], odd[i]), _mm512_set1_ps(scale)));
}

// Scores become weights in place, zero beyond those that the query sees; returns one over their sum.
float weigh(float *scores, int64_t seen, int64_t padded) {
    __m512 most = _mm512_set1_ps(-3.0e38f);
    for (int64_t i = 0; i < seen; i += LANES)
        most = _mm512_mask_max_ps(most, lanes(seen - i), most, _mm512_load_ps(scores + i));
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < padded; i += LANES) {
        const __m512 weight =
            _mm512_maskz_mov_ps(lanes(seen - i), exponential(_mm512_sub_ps(_mm512_load_ps(scores + i), top)));
        _mm512_store_ps(scores + i, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    return seen ? 1.0f / _mm512_reduce_add_ps(sum) : 0.0f;
}

// Up to 64 dimensions of the values of some cells, row by row in 32 bits.
void widen(const char *values, uint64_t stride, int64_t depth, const int32_t *cells, int64_t count, float *out) {
    for (int64_t cell = 0; cell < count; cell++)
        for (int part = 0; part < WIDTH / LANES; part++) {
            const __m256i some = _mm256_maskz_loadu_epi16(lanes(depth - part * LANES),
                                                          values + cells[cell] * stride + 2 * part * LANES);
            _mm512_store_ps(out + cell * WIDTH + part * LANES, _mm512_cvtph_ps(some));
        }
}

// Add to the sums of so many queries what they take of the values of some cells.
template <int Count>
inline void take(const float *values, int64_t cells, const float *weights, int64_t stride, float *sums) {
    constexpr int PARTS = WIDTH / LANES;
    __m512 sum[Count][PARTS];
    for (int i = 0; i < Count; i++)
        for (int part = 0; part < PARTS; part++) sum[i][part] = _mm512_load_ps(sums + i * WIDTH + part * LANES);
    for (int64_t cell = 0; cell < cells; cell++)
        for (int i = 0; i < Count; i++) {
            const __m512 weight = _mm512_set1_ps(weights[i * stride + cell]);
            for (int part = 0; part < PARTS; part++) {
                const __m512 some = _mm512_load_ps(values + cell * WIDTH + part * LANES);
                sum[i][part] = _mm512_fmadd_ps(some, weight, sum[i][part]);
            }
        }
    for (int i = 0; i < Count; i++)
        for (int part = 0; part < PARTS; part++) _mm512_store_ps(sums + i * WIDTH + part * LANES, sum[i][part]);
}

// One layer's attention, and where things lie in it.
struct Layer {
    const Tensor *queries, *keys, *values, *mask;
    Tensor *out;
    float scale;
    int64_t depth, width, rows, heads, streams, cells, sharing;  // depth of keys, of values

    explicit Layer(Tensor *tensor)
        : queries(tensor->source[0]), keys(tensor->source[1]), values(tensor->source[2]), mask(tensor->source[3]),
          out(tensor), depth(keys->size[0]), width(values->size[0]), rows(queries->size[1]), heads(queries->size[2]),
          streams(queries->size[3]), cells(keys->size[1]), sharing(heads / keys->size[2]) {
        std::memcpy(&scale, tensor->params, sizeof scale);
    }

    const float *query(int64_t row, int64_t head, int64_t stream) const {
        return reinterpret_cast<const float *>(queries->data + row * queries->stride[1] + head * queries->stride[2] +
                                               stream * queries->stride[3]);
    }

    const uint16_t *seen_by(int64_t row, int64_t stream) const {
        return reinterpret_cast<const uint16_t *>(mask->data + row * mask->stride[1] +
                                                  stream % mask->size[3] * mask->stride[3]);
    }

    float *result(int64_t row, int64_t head, int64_t stream) const {
        return reinterpret_cast<float *>(out->data) + ((stream * rows + row) * heads + head) * width;
    }
};

// Hand on the queries, as many at a time as there are registers for.
template <int Most, typename Some>
inline void several(int64_t queries, const Some &some) {
    for (int64_t i = 0; i < queries;) {
        const auto next = [&](auto count) {
            some(i, count);
            i += count;
        };
        if (queries - i >= Most) next(std::integral_constant<int, Most>());
        else if (queries - i >= 6) next(std::integral_constant<int, 6>());
        else if (queries - i >= 3) next(std::integral_constant<int, 3>());
        else next(std::integral_constant<int, 1>());
    }
}

// Some rows, of which row `i` sees the first `seen[i]` of the cells that are listed, for all heads with the same keys.
template <int Depth>
void attend(const Layer &layer, Scratch &scratch, int64_t stream, int64_t group, int64_t first, int64_t rows,
            const int64_t *seen) {
    const int32_t *cells = scratch.cells.data();
    const int64_t count = scratch.cells.size(), padded = (count + LANES - 1) / LANES * LANES;
    const int64_t queries = rows * layer.sharing, head = group * layer.sharing;
    const size_t room = queries * padded + LANES;
    if (scratch.scores.size() < room) scratch.scores.resize(room);
    auto *scores = reinterpret_cast<float *>((reinterpret_cast<uintptr_t>(scratch.scores.data()) + 63) / 64 * 64);
    float *out[QUERIES], shares[QUERIES];
    for (int64_t i = 0; i < queries; i++) {
        const int64_t row = first + i / layer.sharing, which = head + i % layer.sharing;
        const float *query = layer.query(row, which, stream);
        for (int64_t d = 0; d < Depth; d += LANES)
            _mm512_store_ps(scratch.queries + i * Depth + d, _mm512_maskz_loadu_ps(lanes(layer.depth - d), query + d));
        out[i] = layer.result(row, which, stream);
    }

    const char *keys = layer.keys->data + group * layer.keys->stride[2] + stream * layer.keys->stride[3];
    const char *values = layer.values->data + group * layer.values->stride[2] + stream * layer.values->stride[3];
    for (int64_t cell = 0; cell < count; cell += LANES) {
        fetch(keys, layer.keys->stride[1], layer.depth, cells, cell + LANES, count);
        fetch(values, layer.values->stride[1], layer.width, cells, cell, count);
        gather<Depth>(keys, layer.keys->stride[1], layer.depth, cells + cell, count - cell, scratch.keys);
        several<SCORED>(queries, [&](int64_t i, auto size) {
            score<Depth, size>(scratch.keys, scratch.queries + i * Depth, layer.scale, scores + i * padded + cell,
                               padded);
        });
    }
    for (int64_t i = 0; i < queries; i++) shares[i] = weigh(scores + i * padded, seen[i / layer.sharing], padded);

    for (int64_t d = 0; d < layer.width; d += WIDTH) {
        std::memset(scratch.sums, 0, queries * WIDTH * sizeof(float));
        for (int64_t cell = 0; cell < count; cell += CELLS) {
            const int64_t some = count - cell < CELLS ? count - cell : CELLS;
            widen(values + 2 * d, layer.values->stride[1], layer.width - d, cells + cell, some, scratch.values);
            several<SUMMED>(queries, [&](int64_t i, auto size) {
                take<size>(scratch.values, some, scores + i * padded + cell, padded, scratch.sums + i * WIDTH);
            });
        }
        for (int64_t i = 0; i < queries; i++)
            for (int64_t part = 0; part < WIDTH; part += LANES) {
                const __m512 sum = _mm512_load_ps(scratch.sums + i * WIDTH + part);
                _mm512_mask_storeu_ps(out[i] + d + part, lanes(layer.width - d - part),
                                      _mm512_mul_ps(sum, _mm512_set1_ps(shares[i])));
            }
    }
}

// A block of rows, tile by tile: a row joins the tile if it sees all that the one before sees, and what comes after.
template <int Depth>
void attend_block(const Layer &layer, Scratch &scratch, int64_t stream, int64_t group, int64_t first,
                  int64_t end) {
    int64_t seen[TILE], rows = 0;
    list(layer.seen_by(first, stream), layer.cells, scratch.cells);
    seen[rows++] = scratch.cells.size();
    for (int64_t row = first + 1; row <= end; row++) {
        bool joins = false;
        if (row < end) {
            list(layer.seen_by(row, stream), layer.cells, scratch.next);
            joins = rows < TILE && scratch.next.size() >= scratch.cells.size() &&
                    !std::memcmp(scratch.next.data(), scratch.cells.data(), scratch.cells.size() * sizeof(int32_t));
        }
        if (!joins) {
            attend<Depth>(layer, scratch, stream, group, row - rows, rows, seen);
            rows = 0;
        }
        std::swap(scratch.cells, scratch.next);
        seen[rows++] = scratch.cells.size();
    }
}

bool fits(const Tensor *out) {
    const Tensor *queries = out->source[0], *keys = out->source[1], *values = out->source[2], *mask = out->source[3];
    float bias, cap;
    std::memcpy(&bias, out->params + 1, sizeof bias);
    std::memcpy(&cap, out->params + 2, sizeof cap);
    return in_use && mask && !out->source[4] && bias == 0 && cap == 0 && queries->type == F32 && keys->type == F16 &&
           values->type == F16 && mask->type == F16 && queries->stride[0] == 4 && keys->stride[0] == 2 &&
           values->stride[0] == 2 && mask->stride[0] == 2 && keys->size[0] <= DEEPEST &&
           queries->size[0] == keys->size[0] && values->size[1] == keys->size[1] && mask->size[0] == keys->size[1] &&
           mask->size[1] >= queries->size[1] && mask->size[2] == 1 && values->size[2] == keys->size[2] &&
           values->size[3] == queries->size[3] && keys->size[3] == queries->size[3] &&
           queries->size[2] % keys->size[2] == 0 && queries->size[2] / keys->size[2] <= MOST_SHARED;
}

}  // namespace

extern "C" {

void attention_original(Attention function) { original = function; }

void attention_use(bool on) { in_use = on; }

// How many layers' attention was taken.
int64_t attention_taken() { return taken; }

// Softmax of scaled products of queries and keys, of the cells that the mask leaves, times the values.
void ggml_compute_forward_flash_attn_ext(const Thread *thread, Tensor *out) {
    if (!fits(out)) {
        if (!original) std::abort();  // rather than a result that nobody computed
        return original(thread, out);
    }
    const Layer layer(out);
    Scratch &scratch = own;
    const int64_t blocks = (layer.rows + BLOCK - 1) / BLOCK, groups = layer.heads / layer.sharing;
    const int64_t tasks = layer.streams * blocks * groups, end = tasks * (thread->number + 1) / thread->count;
    const auto run = layer.depth <= 64    ? attend_block<64>
                     : layer.depth <= 128 ? attend_block<128>
                                          : attend_block<DEEPEST>;
    for (int64_t task = tasks * thread->number / thread->count; task < end; task++) {
        const int64_t place = task / groups % blocks;
        const int64_t block = place % 2 ? blocks - 1 - place / 2 : place / 2;  // rows at the end see more
        const int64_t first = block * BLOCK, behind = first + BLOCK < layer.rows ? first + BLOCK : layer.rows;
        run(layer, scratch, task / groups / blocks, task % groups, first, behind);
    }
    taken += thread->number == 0;
}
}
