// CHECK(condition) ends the test if the condition is false, and prints it with its place in the source.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(...)                                                                 \
    do {                                                                           \
        if (!(__VA_ARGS__)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #__VA_ARGS__); \
            std::exit(1);                                                          \
        }                                                                          \
    } while (false)
