// What our kernels share: how llama.cpp tells a thread which one it is, and sixteen lanes of a vector.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

// The beginning of ggml_compute_params: which of how many threads this is.
struct Thread {
    int number, count;
};

constexpr int LANES = 16;

// 16 x 16 values of four bytes.
inline void transpose(__m512i rows[16]) {
    __m512i next[16];
    for (int i = 0; i < 8; i++) {
        next[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        next[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            rows[4 * i + 2 * j] = _mm512_unpacklo_epi64(next[4 * i + j], next[4 * i + 2 + j]);
            rows[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(next[4 * i + j], next[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        const __m512i a0 = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
        const __m512i a1 = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
        const __m512i b0 = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
        const __m512i b1 = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
        next[j] = _mm512_shuffle_i32x4(a0, a1, 0x88);
        next[4 + j] = _mm512_shuffle_i32x4(b0, b1, 0x88);
        next[8 + j] = _mm512_shuffle_i32x4(a0, a1, 0xdd);
        next[12 + j] = _mm512_shuffle_i32x4(b0, b1, 0xdd);
    }
    std::memcpy(rows, next, sizeof next);
}

}  // namespace
