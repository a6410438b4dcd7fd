// The CUDA attention kernel, its threads stepped on the host between barriers, gives the results of the CPU kernel in
// float32, and the layouts of its tiles are those of the tensor cores' instructions.
#include <algorithm>
#include <set>

#include "attention_case.h"
#include "cuda/attention_kernel.cuh"

using namespace bertfast;
using cuda::TILE;
using cuda::TILE_ELEMENTS;
using cuda::TILE_THREADS;

namespace {

using Block = HostBlock<cuda::AttentionRegisters>;

template <typename T, typename Body>
void for_each_item(const AttentionShape& shape, bool whole, const Body& body) {
    for (int64_t item = 0; item < shape.batch * shape.heads; ++item) {
        auto shared = poisoned<cuda::AttentionShared<T>>(1);
        auto delta = poisoned<float>(shape.max_seqlen);
        Block block{TILE_THREADS, item % 2 == 0};
        body(cuda::AttentionBlock<T, Block>(block, shape, item, whole, shared[0], delta.data()));
    }
}

template <typename T>
bool attention(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads, int64_t width,
               bool drops, bool whole) {
    const AttentionCase<T> test_case(queries, keys, heads, width, drops);
    for_each_item<T>(test_case.shape, whole, [&](auto block) { block.forward(test_case.forward); });
    for_each_item<T>(test_case.shape, whole, [&](auto block) { block.backward(test_case.backward); });
    return test_case.is_good();
}

// The log-sum-exp is the kernel's own, and the width's root is no power of two.
template <typename T>
bool a_lone_key_gives_queries_no_gradient() {
    const std::vector<int32_t> lengths(200, 1);
    AttentionCase<T> test_case(lengths, lengths, 2, 33, false);
    for_each_item<T>(test_case.shape, false, [&](auto block) { block.forward(test_case.forward); });
    AttentionBackward<T> backward = test_case.backward;
    backward.log_sum_exp = test_case.forward.log_sum_exp;
    for_each_item<T>(test_case.shape, false, [&](auto block) { block.backward(backward); });
    const bool good = test_case.queries_have_no_gradient();
    if (!good) std::printf("a lone key gives queries a gradient, %d bytes\n", int(sizeof(T)));
    return good;
}

template <typename T>
bool all_sizes() {
    struct Case {
        std::vector<int32_t> queries, keys;
        int64_t heads, width;
    };
    const Case cases[] = {{{1}, {1}, 1, 8},
                          {{45, 33, 64, 12}, {45, 33, 64, 12}, 2, 64},
                          {{63, 65, 1, 7}, {63, 65, 1, 7}, 3, 33},
                          {{128, 100}, {128, 100}, 1, 64},
                          {{200}, {200}, 1, 32},
                          {{8, 70, 1}, {45, 130, 20}, 2, 72},
                          {{0, 5, 0, 0, 9, 0}, {0, 5, 3, 0, 9, 70}, 2, 48},
                          {{20}, {70}, 1, 136},
                          {{0, 0}, {0, 0}, 2, 16},
                          {{}, {}, 2, 16}};
    bool good = true;
    for (const Case& each : cases) {
        for (const bool drops : {false, true}) {
            const bool whole = drops && each.width % 8 == 0;
            const bool fine = attention<T>(each.queries, each.keys, each.heads, each.width, drops, whole);
            if (!fine) {
                std::printf("case %d, dropout %d, whole %d, %d bytes\n", int(&each - cases), drops, whole,
                            int(sizeof(T)));
            }
            good &= fine;
        }
    }
    return good;
}

// --- Layouts ---

// Each element of a result belongs to one thread, and elements that should be neighbours are.
template <typename T>
bool places_are_a_bijection() {
    bool good = true;
    for (const bool transposed : {false, true}) {
        std::set<int> seen;
        for (int thread = 0; thread < TILE_THREADS; ++thread) {
            for (int element = 0; element < TILE_ELEMENTS; ++element) {
                const cuda::Place at = cuda::place<T>(thread, element, transposed);
                good &= at.row >= 0 && at.row < TILE && at.column >= 0 && at.column < TILE;
                seen.insert(at.row * TILE + at.column);
                const int together = transposed && sizeof(T) == 2 ? 2 : 4, first = element / together * together;
                const cuda::Place begin = cuda::place<T>(thread, first, transposed);
                good &= at.row == begin.row && at.column == begin.column + element - first;
                good &= begin.column % together == 0;
            }
        }
        good &= seen.size() == TILE * TILE;
    }
    if (!good) std::printf("places in a result are wrong, %d bytes\n", int(sizeof(T)));
    return good;
}

template <typename T>
bool tiles_hold_every_element_once() {
    std::set<int> seen;
    for (int i = 0; i < TILE * TILE; ++i) seen.insert(cuda::Tile<T>::index(i / TILE, i % TILE));
    const int room = sizeof(cuda::Tile<T>) / sizeof(T);
    const bool good = seen.size() == TILE * TILE && *seen.begin() >= 0 && *seen.rbegin() < room;
    if (!good) std::printf("a tile's elements overlap, %d bytes\n", int(sizeof(T)));
    return good;
}

int address(cuda::Place at) {
    return cuda::Tile<bfloat16>::index(at.row, at.column);
}

// ldmatrix reads eight rows of 16 bytes at a time: they must begin at multiples of 16 bytes and cover all 32 banks.
bool no_bank_conflicts() {
    bool good = true;
    const auto eight = [&](int first_thread, const auto& place_of) {
        std::set<int> banks;
        for (int thread = first_thread; thread < first_thread + 8; ++thread) {
            const int at = address(place_of(thread));
            good &= at % 8 == 0;
            banks.insert(at / 8 % 8);
        }
        good &= banks.size() == 8;
    };
    for (const bool transposed : {false, true}) {
        for (int thread = 0; thread < TILE_THREADS; thread += 8) {
            for (int k = 0; k < TILE; k += 16) {
                eight(thread, [&](int each) { return cuda::left_address(each, k, transposed); });
                for (int pair = 0; pair < 2; ++pair) {
                    eight(thread, [&](int each) { return cuda::right_address(each, k, pair, transposed); });
                }
            }
        }
    }
    if (!good) std::printf("ldmatrix's rows share banks\n");
    return good;
}

// What a warp's ldmatrix.x4 loads, as the PTX manual describes it: matrix m's rows are at the addresses of lanes
// 8 m ... 8 m + 7. Lane l gets element 2 (l % 4) and the next in row l / 4 or, if transposed, in column l / 4.
struct Fragment {
    float element[4][2];
};

Fragment loaded(const cuda::Tile<bfloat16>& tile, const std::vector<int>& rows, bool transposed, int lane) {
    Fragment fragment;
    for (int matrix = 0; matrix < 4; ++matrix) {
        for (int i = 0; i < 2; ++i) {
            const int line = lane / 4, along = lane % 4 * 2 + i;
            const int row = transposed ? along : line, column = transposed ? line : along;
            fragment.element[matrix][i] = to_float(tile.data[rows[8 * matrix + row] + column]);
        }
    }
    return fragment;
}

// mma.m16n8k16, as the PTX manual describes its fragments: the left factor's registers hold rows l / 4 (+ 8 in the
// second and fourth) and k = 2 (l % 4) and the next (+ 8 in the third and fourth); the right's, column l / 4 and the
// same k (+ 8 in the second); the sum's, row l / 4 (+ 8 in the third and fourth) and columns 2 (l % 4) and the next.
void mma(const std::vector<Fragment>& left, const std::vector<Fragment>& right, int first_right,
         const std::vector<float*>& sum, int product) {
    float a[16][16], b[8][16];
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 2; ++i) {
            const int line = lane / 4, k = lane % 4 * 2 + i;
            for (int each = 0; each < 4; ++each) a[line + each % 2 * 8][k + each / 2 * 8] = left[lane].element[each][i];
            for (int each = 0; each < 2; ++each) b[line][k + 8 * each] = right[lane].element[first_right + each][i];
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int each = 0; each < 4; ++each) {
            const int row = lane / 4 + each / 2 * 8, column = lane % 4 * 2 + each % 2;
            for (int k = 0; k < 16; ++k) sum[lane][cuda::mma_element(product, each)] += a[row][k] * b[column][k];
        }
    }
}

// The device's part of `multiply`, emulated by instruction, gives each thread the elements that `place` names.
template <bool LEFT_TRANSPOSED, bool RIGHT_TRANSPOSED>
bool tensor_cores_multiply() {
    std::mt19937 random(3);
    cuda::Tile<bfloat16> left, right;
    for (cuda::Tile<bfloat16>* tile : {&left, &right}) {
        for (bfloat16& each : tile->data)
            from_float(static_cast<float>(int(random() % 17)) - 8.0f, each);  // exact sums
    }
    bool good = true;
    for (int warp = 0; warp < TILE_THREADS / 32; ++warp) {
        std::vector<std::vector<float>> sums(32, std::vector<float>(TILE_ELEMENTS, 0.0f));
        const auto load = [&](const cuda::Tile<bfloat16>& tile, bool transposed, const auto& place_of) {
            std::vector<int> rows;
            for (int lane = 0; lane < 32; ++lane) rows.push_back(address(place_of(32 * warp + lane)));
            std::vector<Fragment> fragments;
            for (int lane = 0; lane < 32; ++lane) fragments.push_back(loaded(tile, rows, transposed, lane));
            return fragments;
        };
        for (int k = 0; k < TILE; k += 16) {
            const auto a =
                load(left, LEFT_TRANSPOSED, [&](int thread) { return cuda::left_address(thread, k, LEFT_TRANSPOSED); });
            for (int pair = 0; pair < 2; ++pair) {
                const auto b = load(right, RIGHT_TRANSPOSED,
                                    [&](int thread) { return cuda::right_address(thread, k, pair, RIGHT_TRANSPOSED); });
                std::vector<float*> c;
                for (auto& each : sums) c.push_back(each.data() + 8 * pair);
                for (int half = 0; half < 2; ++half) mma(a, b, 2 * half, c, half);
            }
        }
        for (int lane = 0; lane < 32; ++lane) {
            float expected[TILE_ELEMENTS] = {};
            cuda::multiply<LEFT_TRANSPOSED, RIGHT_TRANSPOSED>(left, right, 32 * warp + lane, expected);
            good &= std::equal(expected, expected + TILE_ELEMENTS, sums[lane].begin());
        }
    }
    if (!good) std::printf("tensor cores: wrong, transposed %d %d\n", LEFT_TRANSPOSED, RIGHT_TRANSPOSED);
    return good;
}

}  // namespace

int main() {
    bool good = places_are_a_bijection<float>() & places_are_a_bijection<bfloat16>();
    good &= tiles_hold_every_element_once<float>() & tiles_hold_every_element_once<bfloat16>();
    good &= no_bank_conflicts();
    good &= tensor_cores_multiply<false, false>() & tensor_cores_multiply<false, true>();
    good &= tensor_cores_multiply<true, true>() & tensor_cores_multiply<true, false>();
    good &= all_sizes<float>() & all_sizes<bfloat16>();
    good &= a_lone_key_gives_queries_no_gradient<float>() & a_lone_key_gives_queries_no_gradient<bfloat16>();
    return good ? 0 : 1;
}
