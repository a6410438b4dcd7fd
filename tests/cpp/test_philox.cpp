// Philox4x32 of ten rounds and of seven, one draw and many at a time, gives the known answers that its authors publish
// with Random123 (kat_vectors).
#define BERTFAST_ISA portable
#include "check.h"
#include "core/math/philox.h"
#include "cpu/simd/philox_lanes.h"

using bertfast::Philox;
using bertfast::philox4x32;
using bertfast::cpu::portable::LaneWords;
using bertfast::cpu::portable::LONG_LANES;
using bertfast::cpu::portable::one_lane;

static bool equal(const Philox& drawn, const Philox& known) {
    for (int i = 0; i < 4; ++i) {
        if (drawn.word[i] != known.word[i]) return false;
    }
    return true;
}

template <int ROUNDS>
static void check_one(const Philox& counter, uint32_t key0, uint32_t key1, const Philox& known) {
    const auto& c = counter.word;
    CHECK(equal(philox4x32<ROUNDS>(c[0], c[1], c[2], c[3], key0, key1), known));
    const auto all = LaneWords::all;
    const auto lanes = philox4x32<ROUNDS, LaneWords>(all(c[0]), all(c[1]), all(c[2]), all(c[3]), key0, key1);
    for (int lane = 0; lane < LONG_LANES; ++lane) CHECK(equal(one_lane(lanes, lane), known));
}

template <int ROUNDS>
static void check(const Philox& of_zeros, const Philox& of_ones, const Philox& of_pi) {
    const uint32_t ones = 0xffffffff;
    check_one<ROUNDS>({{0, 0, 0, 0}}, 0, 0, of_zeros);
    check_one<ROUNDS>({{ones, ones, ones, ones}}, ones, ones, of_ones);
    check_one<ROUNDS>({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0, of_pi);
}

int main() {
    check<10>({{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
              {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}});
    check<7>({{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}}, {{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}},
             {{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}});
}
