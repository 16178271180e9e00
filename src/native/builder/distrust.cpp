#include "builder/distrust.h"

#include "builder/path.h"
#include "store/trust.h"

namespace pht {

namespace {

void add_octal(u32 value, Buffer<400> *out) {
    for (int shift = 9; shift >= 0; shift -= 3) {
        const char digit = static_cast<char>('0' + ((value >> shift) & 7));
        if (shift != 9 || digit != '0') out->add({&digit, 1});
    }
}

// Whether the step is the reason why the way is not trusted, and then which in words.
bool blames(const char *path, bool above, Trouble *out) {
    sys::FileIdentity file;
    if (!sys::identify_path(path, &file).ok()) return false;
    constexpr u32 kOthersWrite = S_IWGRP | S_IWOTH;
    const u32 type = file.mode & S_IFMT;
    out->kind = Trouble::Kind::untrusted;
    out->text.add(path);
    if (type != S_IFDIR && type != S_IFLNK) {
        out->text.add(" is no directory");
        return true;
    }
    sys::FileIdentity alone = file;
    alone.mode = S_IFDIR;
    if (!trusted_directory(alone, false)) {
        out->text.add(" belongs to user ").add_decimal(file.owner);
        return true;
    }
    if (type == S_IFDIR && (file.mode & kOthersWrite) && !trusted_directory(file, above)) {
        out->text.add(" is writable by others (mode ");
        add_octal(file.mode & 07777, &out->text);
        out->text.add(")");
        return true;
    }
    *out = {};
    return false;
}

}  // namespace

Trouble explain(const char *root) {
    Path path(root), whole(root);
    Trouble out;
    if (!path.ok() || !whole.ok()) return trouble(Trouble::Kind::untrusted, "is no absolute path");
    if (!is_somebody())
        return trouble(Trouble::Kind::untrusted,
                       "this process has several user ids, or is nobody: no store is its own");
    for (size_t at = 1; at <= whole.size(); ++at) {
        if (at < whole.size() && whole.text()[at] != '/' && at != 1) continue;
        const Path step(whole.text());
        Path prefix(whole.text());
        prefix.cut(at);
        if (blames(prefix.text(), at < whole.size(), &out)) return out;
    }
    return trouble(Trouble::Kind::untrusted, str(root),
                   ": a symbolic link on the way leads where somebody else could write");
}

Trouble explain_below(const char *root, const char *name) {
    MappedArray<char> path;
    const auto add = [&](Str text) { return path.append(text.data, text.size); };
    const bool is_version = equal(str(name), str("v1"));
    if (!add(str(root)) || !add(str(is_version ? "/" : "/v1/")) || !add(str(name)) ||
        !path.push('\0'))
        return failed_call("mmap", Error{ENOMEM});
    return explain(path.data());
}

}  // namespace pht
