// AMX's instructions in plain C++, for processors without them: eight tiles of 16 rows of 64 bytes, as Intel's Software
// Developer's Manual describes them. Include it before cpu/simd/amx_tiles.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "core/math/bfloat16.h"

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps

namespace amx_emulation {

using Row = unsigned char[64];
inline thread_local Row tiles[8][16];
inline thread_local bool configured = false;

inline void zero(int tile) {
    memset(tiles[tile], 0, sizeof tiles[tile]);
}

inline void load(int tile, const void* from, int64_t stride) {
    for (int row = 0; row < 16; ++row) memcpy(tiles[tile][row], static_cast<const char*>(from) + row * stride, 64);
}

inline void store(int tile, void* to, int64_t stride) {
    for (int row = 0; row < 16; ++row) memcpy(static_cast<char*>(to) + row * stride, tiles[tile][row], 64);
}

inline void multiply(int sum, int left, int right) {
    for (int m = 0; m < 16; ++m) {
        float sums[16];
        bertfast::bfloat16 a[32], b[32];
        memcpy(sums, tiles[sum][m], 64);
        memcpy(a, tiles[left][m], 64);
        for (int k = 0; k < 16; ++k) {
            memcpy(b, tiles[right][k], 64);
            for (int n = 0; n < 16; ++n) {
                for (int i = 0; i < 2; ++i) sums[n] += to_float(a[2 * k + i]) * to_float(b[2 * n + i]);
            }
        }
        memcpy(tiles[sum][m], sums, 64);
    }
}

}  // namespace amx_emulation

#define _tile_loadconfig(shape) (amx_emulation::configured = (shape) != nullptr)
#define _tile_release() (amx_emulation::configured = false)
#define _tile_zero amx_emulation::zero
#define _tile_loadd amx_emulation::load
#define _tile_stored amx_emulation::store
#define _tile_dpbf16ps amx_emulation::multiply
