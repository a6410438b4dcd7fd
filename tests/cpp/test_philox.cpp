// Philox4x32-10 against the known answers that its authors publish with Random123 (kat_vectors).
#include "check.h"
#include "core/philox.h"

using bertfast::Philox;
using bertfast::philox4x32;

static bool equal(const Philox& drawn, const Philox& known) {
    for (int i = 0; i < 4; ++i) {
        if (drawn.word[i] != known.word[i]) return false;
    }
    return true;
}

int main() {
    CHECK(equal(philox4x32(0, 0, 0, 0, 0, 0), {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}));
    const uint32_t ones = 0xffffffff;
    CHECK(equal(philox4x32(ones, ones, ones, ones, ones, ones), {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}));
    CHECK(equal(philox4x32(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0),
                {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));
}
