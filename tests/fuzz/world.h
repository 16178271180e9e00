// A kernel for the targets whose code asks one: a few files and directories, and a clock that
// stands still. What is mapped, is mapped by the real one.
#pragma once

#include <sys/stat.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernel/types.h"

namespace fuzz {

struct Node {
    std::string data = {};
    uint32_t mode = S_IFREG | 0644, owner = 0;
    uint64_t inode = 7, size = 0;  // size: of `real`
    uint64_t mtime = 0, ctime = 0;
    int real = -1;  // a memory file that has the content, for what is mapped
    // What was written of `real`, sorted and apart; the rest is a hole.
    std::vector<std::pair<uint64_t, uint64_t>> written = {};
    int error = 0;  // what opening it answers
};

struct World {
    std::map<std::string, Node> files;
    size_t step = ~size_t{0};      // the most that one read(2) gives
    unsigned fail_after = 0;       // calls that go well before all reading fails; 0: none does
    uint64_t file_system = 0;      // what statfs(2) names
    uint64_t now = 1'700'000'000;  // seconds
    int seccomp = 0;
    int node = -1;  // what move_pages(2) says of each page; -1: it is not there at all

    Node &add(const std::string &name, const std::string &data);
    Node &add_directory(const std::string &name);
    // Descriptors that the code has open.
    size_t open_count() const;
    // What was mapped to be executed, of files with memory behind them.
    struct Executable {
        uint64_t offset, length;
    };
    std::map<uint64_t, Executable> executable;
};

// The one that simulated() asks; `fresh()` empties it.
extern World world;
void fresh();

}  // namespace fuzz
