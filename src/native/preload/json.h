// As much of JSON as a report needs, written piece by piece; see report.cpp.
#pragma once

#include "kernel/strings.h"

namespace pht::preload {

class Json : NonCopyable {
public:
    void begin_object() { open('{'); }
    void begin_list() { open('['); }
    void end_object() { close('}'); }
    void end_list() { close(']'); }
    // In an object, before its value.
    void key(const char *name) {
        separate();
        quoted(str(name));
        add(str(": "));
        first_ = true;
    }
    void text(Str value) {
        separate();
        quoted(value);
    }
    void number(u64 value);
    void truth(bool value) {
        separate();
        add(str(value ? "true" : "false"));
    }
    // Nothing of it where memory ran out.
    Str done() const { return whole_ ? Str{out_.data(), out_.size()} : Str{}; }

private:
    void add(Str text) { whole_ = out_.append(text.data, text.size) && whole_; }
    void open(char bracket) {
        separate();
        add({&bracket, 1});
        first_ = true;
    }
    void close(char bracket) {
        add({&bracket, 1});
        first_ = false;
    }
    void separate() {
        if (!first_) add(str(", "));
        first_ = false;
    }
    void quoted(Str value);

    MappedArray<char> out_;
    bool first_ = true, whole_ = true;
};

}  // namespace pht::preload
