#include "builder/object.h"

#include "store/record.h"
#include "store/trust.h"

namespace pht {

ObjectName::ObjectName(const char *path) {
    Str rest = str(path);
    const auto step = [&](Buffer<256> *out) {
        size_t size = 0;
        while (size < rest.size && rest.data[size] != '/') ++size;
        if (out) out->add({rest.data, size});
        if (size < rest.size) ++size;
        rest = {rest.data + size, rest.size - size};
    };
    step(nullptr);
    step(&object);
    base.add(rest);
}

Buffer<128> object_name(const Layout &layout, const sys::FileIdentity &file, u64 bias) {
    Buffer<128> out;
    constexpr int kMostBytes = 20;
    for (int i = 0; i < layout.build_id.size && i < kMostBytes; ++i)
        out.add_hex(layout.build_id.bytes[i] >> 4).add_hex(layout.build_id.bytes[i] & 15);
    if (!layout.build_id.size)
        out.add_hex(crc32(reinterpret_cast<const u8 *>(layout.ranges.data()),
                          layout.ranges.size() * sizeof(Range)));
    return out.add("-").add_hex(file.size).add("-").add_hex(bias);
}

sys::FileIdentity identify_copy(const StoreWriter &writer, const char *path) {
    const ObjectName name(path);
    const Descriptor directory(open_plain_directory(writer.objects(), name.object.data));
    sys::FileIdentity file;
    if (directory.ok())
        (void)sys::identify_at(directory, name.base.data, AT_SYMLINK_NOFOLLOW, &file);
    return file;
}

ErrorOr<int> open_copy_at(const StoreWriter &writer, const char *path, sys::FileIdentity *file,
                          Trouble *problem) {
    const ObjectName name(path);
    Outcome outcome;
    const Descriptor directory(open_directory(writer.objects(), name.object.data, &outcome));
    if (directory.ok()) {
        const int fd = open_file(directory, name.base.data, file, &outcome, true);
        if (fd >= 0) return success(fd);
    }
    if (outcome.status == Status::untrusted)
        *problem =
            trouble(Trouble::Kind::untrusted, "its copy could have been written by somebody else");
    else if (outcome.status == Status::no_entry || outcome.status == Status::no_store)
        *problem = failed_call("its copy cannot be read: open", Error{ENOENT});
    else
        *problem = failed_call("its copy cannot be read: open", Error{outcome.error});
    return Error{ENOENT};
}

}  // namespace pht
