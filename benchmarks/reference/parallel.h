// Contiguous parts of n paths on several threads, each with its own seed.
#pragma once
#include <cstdint>
#include <thread>
#include <vector>

template <class Part> static void parallel(Part part, int64_t n, uint64_t seed, int threads) {
    if (threads == 1) return part(int64_t(0), n, seed);
    std::vector<std::thread> pool;
    const int64_t share = (n / threads) / 64 * 64;
    for (int i = 0; i < threads; i++)
        pool.emplace_back(part, i * share, i == threads - 1 ? n : (i + 1) * share, seed + 7919 * (i + 1));
    for (auto &t : pool) t.join();
}
