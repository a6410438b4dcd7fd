// Attention by one block per sequence and head, in tiles of 64 queries and 64 keys. The work between two barriers is
// passed to `block.each`: on a GPU each thread runs it, on the host a loop does, with the thread's registers.
//
// Scores are scaled only after their greatest, or their log-sum-exp, is subtracted, so that differences that should be
// 0 are exactly 0. Only the log-sum-exps are stored. A tile of scores is recomputed when needed, unless the registers
// still hold it: a sequence of one tile computes its scores once.
#pragma once

#include "core/attention.h"
#include "core/math/log_sum_exp.h"
#include "cuda/tile/mma.cuh"

namespace bertfast::cuda {

template <typename T>
struct AttentionShared {
    Tile<T> left, right;
    Tile<T> dropped, grad_scores;
    LogSumExp part[TILE][TILE / 4 + 1];  // of a row: four columns of one thread each; padded to avoid bank conflicts
    LogSumExp row[TILE];
};

struct AttentionRegisters {
    float scores[TILE_ELEMENTS];     // q k^T, unscaled
    float gradients[TILE_ELEMENTS];  // grad v^T
    float first[TILE_ELEMENTS], second[TILE_ELEMENTS];
    uint32_t kept;  // which of the scores' elements dropout keeps: a bit for each
    LogSumExp part[TILE_ELEMENTS / 4];
};

// A block's work on one item, a sequence and head.
template <typename T, typename Block>
class AttentionBlock {
  public:
    // `delta`: max_seqlen floats of shared memory, for the backward pass. `whole`: see load_tile; it holds for all
    // tensors.
    BERTFAST_HD_MEMBER AttentionBlock(Block& block, const AttentionShape& shape, int64_t item, bool whole,
                                      AttentionShared<T>& shared, float* delta)
        : block_(block),
          shape_(shape),
          part_(shape, item),
          queries_(static_cast<int>(part_.queries)),
          keys_(static_cast<int>(part_.keys)),
          width_(static_cast<int>(shape.head_dim)),
          dropout_(shape.dropout),
          scale_(1.0f / sqrtf(static_cast<float>(shape.head_dim))),
          whole_(whole),
          shared_(shared),
          delta_(delta) {
        dropout_.place += static_cast<uint32_t>(part_.head);
        // delta has room for no more, whatever the offsets say.
        if (queries_ > shape.max_seqlen) queries_ = static_cast<int>(shape.max_seqlen);
    }

    BERTFAST_HD_MEMBER void forward(const AttentionForward<T>& tensors) {
        for (int query = 0; query < queries_; query += TILE) {
            int held = -1;
            block_.each([&](int, AttentionRegisters& mine) {
                for (LogSumExp& part : mine.part) part = empty_log_sum_exp();
            });
            for (int key = 0; key < keys_; key += TILE) {
                make_scores(tensors.query, tensors.key_value, query, key);
                held = key;
                block_.each([&](int thread, AttentionRegisters& mine) { add_to_parts(thread, key, mine); });
            }
            block_.each([&](int thread, AttentionRegisters& mine) { store_parts(thread, mine); });
            block_.each([&](int thread, AttentionRegisters&) {
                if (thread >= TILE) return;
                LogSumExp row = empty_log_sum_exp();
                for (int i = 0; i < TILE / 4; ++i) row = merge(row, shared_.part[thread][i], scale_);
                shared_.row[thread] = row;
                if (query + thread < queries_) {
                    tensors.log_sum_exp[statistic(query + thread)] = row.maximum + logf(row.sum) / scale_;
                }
            });
            for (int d = 0; d < width_; d += TILE) {
                block_.each([&](int, AttentionRegisters& mine) { clear(mine.first); });
                // From the last tile, which the registers hold, to the first.
                for (int key = (keys_ - 1) / TILE * TILE; key >= 0; key -= TILE) {
                    if (held != key) make_scores(tensors.query, tensors.key_value, query, key);
                    held = key;
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        load_keys(tensors.key_value, part_.value_offset, key, d, thread, shared_.right);
                        drop_probabilities(thread, query, key, mine);
                        block_.wait(thread);
                    });
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        multiply<false, true>(shared_.dropped, shared_.right, thread, mine.first);
                    });
                }
                block_.each([&](int thread, AttentionRegisters& mine) {
                    store(thread, mine.first, tensors.out + part_.query_offset + query * part_.query_stride,
                          part_.query_stride, queries_ - query, d,
                          [&](int row) { return 1.0f / shared_.row[row].sum; });
                });
            }
        }
    }

    // With P the probabilities, F dropout's factors, D = P F the dropped ones and G = (grad v^T) F the gradient of P,
    // the gradient of the scaled scores is S = P (G - delta), delta = rowsum(P G).
    BERTFAST_HD_MEMBER void backward(const AttentionBackward<T>& tensors) {
        int held_query = -1, held_key = -1;
        const auto need = [&](int query, int key) {
            if (held_query != query || held_key != key) {
                make_scores(tensors.query, tensors.key_value, query, key);
                make_gradients(tensors.grad, tensors.key_value, query, key);
                block_.each([&](int thread, AttentionRegisters& mine) {
                    to_probabilities(tensors.log_sum_exp, thread, query, key, mine);
                });
            }
            held_query = query;
            held_key = key;
        };
        const int last_query = (queries_ - 1) / TILE * TILE, last_key = (keys_ - 1) / TILE * TILE;
        for (int query = 0; query < queries_; query += TILE) {
            block_.each([&](int, AttentionRegisters& mine) {
                for (LogSumExp& part : mine.part) part.sum = 0.0f;
            });
            for (int key = 0; key < keys_; key += TILE) {
                need(query, key);
                block_.each([&](int, AttentionRegisters& mine) {
                    for (int i = 0; i < TILE_ELEMENTS; ++i) {
                        mine.part[i / 4].sum += mine.scores[i] * mine.gradients[i];
                    }
                });
            }
            block_.each([&](int thread, AttentionRegisters& mine) { store_parts(thread, mine); });
            block_.each([&](int thread, AttentionRegisters&) {
                if (thread >= TILE || query + thread >= queries_) return;
                float delta = 0.0f;
                for (int i = 0; i < TILE / 4; ++i) delta += shared_.part[thread][i].sum;
                delta_[query + thread] = delta;
            });
            for (int d = 0; d < width_; d += TILE) {
                block_.each([&](int, AttentionRegisters& mine) { clear(mine.first); });
                for (int key = last_key; key >= 0; key -= TILE) {
                    need(query, key);
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        load_keys(tensors.key_value, part_.key_offset, key, d, thread, shared_.right);
                        store_gradients(thread, query, mine);
                        block_.wait(thread);
                    });
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        multiply<false, true>(shared_.grad_scores, shared_.right, thread, mine.first);
                    });
                }
                block_.each([&](int thread, AttentionRegisters& mine) {
                    store(thread, mine.first, tensors.grad_query + part_.query_offset + query * part_.query_stride,
                          part_.query_stride, queries_ - query, d, [&](int) { return scale_; });
                });
            }
        }
        for (int key = 0; key < keys_; key += TILE) {
            for (int d = 0; d < width_; d += TILE) {
                block_.each([&](int, AttentionRegisters& mine) {
                    clear(mine.first);
                    clear(mine.second);
                });
                for (int query = last_query; query >= 0 && queries_ > 0; query -= TILE) {
                    need(query, key);
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        load_queries(tensors.query, query, d, thread, shared_.left);
                        load_queries(tensors.grad, query, d, thread, shared_.right);
                        store_gradients(thread, query, mine);
                        store_dropped(thread, mine);
                        block_.wait(thread);
                    });
                    block_.each([&](int thread, AttentionRegisters& mine) {
                        multiply<true, true>(shared_.grad_scores, shared_.left, thread, mine.first);
                        multiply<true, true>(shared_.dropped, shared_.right, thread, mine.second);
                    });
                }
                block_.each([&](int thread, AttentionRegisters& mine) {
                    T* const to = tensors.grad_key_value + key * part_.key_stride;
                    store(thread, mine.first, to + part_.key_offset, part_.key_stride, keys_ - key, d,
                          [&](int) { return scale_; });
                    store(thread, mine.second, to + part_.value_offset, part_.key_stride, keys_ - key, d,
                          [](int) { return 1.0f; });
                });
            }
        }
    }

  private:
    BERTFAST_HD_MEMBER int64_t statistic(int query) const {
        return (part_.first_query + query) * shape_.heads + part_.head;
    }

    BERTFAST_HD_MEMBER static void clear(float (&sum)[TILE_ELEMENTS]) {
        for (float& each : sum) each = 0.0f;
    }

    // --- Tiles ---

    BERTFAST_HD_MEMBER void load_queries(const T* from, int query, int d, int thread, Tile<T>& to) const {
        load_tile(block_, from + part_.query_offset + query * part_.query_stride + d, part_.query_stride,
                  queries_ - query, width_ - d, whole_, thread, to);
    }

    // `first`: part_.key_offset or part_.value_offset.
    BERTFAST_HD_MEMBER void load_keys(const T* from, int64_t first, int key, int d, int thread, Tile<T>& to) const {
        load_tile(block_, from + first + key * part_.key_stride + d, part_.key_stride, keys_ - key, width_ - d, whole_,
                  thread, to);
    }

    using Sum = float (AttentionRegisters::*)[TILE_ELEMENTS];

    // The products of a tile of queries, or their gradients, with a tile of keys or values.
    BERTFAST_HD_MEMBER void make(Sum sum, const T* queries, const T* keys, int64_t first, int query, int key) {
        for (int d = 0; d < width_; d += TILE) {
            block_.each([&](int thread, AttentionRegisters& mine) {
                if (d == 0) clear(mine.*sum);
                load_queries(queries, query, d, thread, shared_.left);
                load_keys(keys, first, key, d, thread, shared_.right);
                block_.wait(thread);
            });
            block_.each([&](int thread, AttentionRegisters& mine) {
                multiply<false, false>(shared_.left, shared_.right, thread, mine.*sum);
            });
        }
    }

    BERTFAST_HD_MEMBER void make_scores(const T* queries, const T* key_value, int query, int key) {
        make(&AttentionRegisters::scores, queries, key_value, part_.key_offset, query, key);
    }

    BERTFAST_HD_MEMBER void make_gradients(const T* grad, const T* key_value, int query, int key) {
        make(&AttentionRegisters::gradients, grad, key_value, part_.value_offset, query, key);
    }

    template <typename Factor>
    BERTFAST_HD_MEMBER void store(int thread, const float (&sum)[TILE_ELEMENTS], T* to, int64_t stride, int rows, int d,
                                  const Factor& factor) const {
        for (int i = 0; i < TILE_ELEMENTS; ++i) {
            const Place at = place<T>(thread, i, true);
            if (at.row < rows && d + at.column < width_) {
                from_float(sum[i] * factor(at.row), to[at.row * stride + d + at.column]);
            }
        }
    }

    // --- Rows ---

    // Calls body(number, place of the first) for each four neighbouring scores that a thread holds.
    template <typename Body>
    BERTFAST_HD_MEMBER static void for_each_four(int thread, const Body& body) {
        for (int four = 0; four < TILE_ELEMENTS / 4; ++four) body(four, place<T>(thread, 4 * four, false));
    }

    BERTFAST_HD_MEMBER void add_to_parts(int thread, int key, AttentionRegisters& mine) const {
        for_each_four(thread, [&](int four, Place at) {
            LogSumExp part = empty_log_sum_exp();
            float x[4];
            for (int i = 0; i < 4; ++i) {
                x[i] = key + at.column + i < keys_ ? mine.scores[4 * four + i] : -HUGE_VALF;
                part.maximum = x[i] > part.maximum ? x[i] : part.maximum;
            }
            for (const float each : x) part.sum += fast_exponential((each - part.maximum) * scale_);
            mine.part[four] = merge(mine.part[four], part, scale_);
        });
    }

    BERTFAST_HD_MEMBER void store_parts(int thread, const AttentionRegisters& mine) {
        for_each_four(thread, [&](int four, Place at) { shared_.part[at.row][at.column / 4] = mine.part[four]; });
    }

    // Which of the four scores at a place dropout keeps: a bit for each.
    BERTFAST_HD_MEMBER uint32_t draw_kept(int query, int key, Place at) const {
        if (!dropout_.enabled || query + at.row >= queries_) return 15;
        const int64_t row_key = shape_.row_keys[part_.first_query + query + at.row];
        return kept_four(dropout_, static_cast<uint64_t>(row_key), static_cast<uint32_t>(key + at.column));
    }

    BERTFAST_HD_MEMBER float dropped(uint32_t kept, int element, float x) const {
        return kept >> element & 1 ? x * dropout_.scale : 0.0f;
    }

    BERTFAST_HD_MEMBER static void store_four(const float (&x)[4], Place at, Tile<T>& tile) {
        T* const to = tile.data + Tile<T>::index(at.row, at.column);
        for (int i = 0; i < 4; ++i) from_float(x[i], to[i]);
    }

    // dropped = e^(scale (score - maximum)) F. The division by the rows' sums comes at the end.
    BERTFAST_HD_MEMBER void drop_probabilities(int thread, int query, int key, const AttentionRegisters& mine) {
        for_each_four(thread, [&](int four, Place at) {
            const float shift = shared_.row[at.row].maximum;
            const uint32_t kept = draw_kept(query, key, at);
            float x[4];
            for (int i = 0; i < 4; ++i) {
                const bool padding = key + at.column + i >= keys_;
                x[i] = padding ? 0.0f : fast_exponential((mine.scores[4 * four + i] - shift) * scale_);
                x[i] = dropped(kept, i, x[i]);
            }
            store_four(x, at, shared_.dropped);
        });
    }

    // Turns scores and grad v^T into P and G. Padding becomes 0.
    BERTFAST_HD_MEMBER void to_probabilities(const float* log_sum_exp, int thread, int query, int key,
                                             AttentionRegisters& mine) const {
        for_each_four(thread, [&](int four, Place at) {
            const bool is_row = query + at.row < queries_;
            const float shift = is_row ? log_sum_exp[statistic(query + at.row)] : 0.0f;
            const uint32_t kept = draw_kept(query, key, at);
            mine.kept = four == 0 ? kept : mine.kept | kept << 4 * four;
            for (int i = 0; i < 4; ++i) {
                const bool padding = !is_row || key + at.column + i >= keys_;
                float &score = mine.scores[4 * four + i], &gradient = mine.gradients[4 * four + i];
                score = padding ? 0.0f : fast_exponential((score - shift) * scale_);
                gradient = dropped(kept, i, gradient);
            }
        });
    }

    BERTFAST_HD_MEMBER void store_gradients(int thread, int query, const AttentionRegisters& mine) {
        for_each_four(thread, [&](int four, Place at) {
            const float delta = query + at.row < queries_ ? delta_[query + at.row] : 0.0f;
            float x[4];
            for (int i = 0; i < 4; ++i) x[i] = mine.scores[4 * four + i] * (mine.gradients[4 * four + i] - delta);
            store_four(x, at, shared_.grad_scores);
        });
    }

    BERTFAST_HD_MEMBER void store_dropped(int thread, const AttentionRegisters& mine) {
        for_each_four(thread, [&](int four, Place at) {
            float x[4];
            for (int i = 0; i < 4; ++i) x[i] = dropped(mine.kept, 4 * four + i, mine.scores[4 * four + i]);
            store_four(x, at, shared_.dropped);
        });
    }

    Block& block_;
    const AttentionShape& shape_;
    AttentionPart part_;
    int queries_, keys_, width_;  // counts within a sequence are small
    Dropout dropout_;
    float scale_;  // of the scores
    bool whole_;
    AttentionShared<T>& shared_;
    float* delta_;
};

template <typename T>
BERTFAST_HD int64_t attention_shared_bytes(int64_t max_seqlen) {
    return int64_t{sizeof(AttentionShared<T>)} + max_seqlen * int64_t{sizeof(float)};
}

}  // namespace bertfast::cuda
