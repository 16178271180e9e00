// The reader of a store's records: bytes of a file, as they are or with the checksum put right.

#include "store/record.h"

#include "check.h"
#include "records.h"
#include "world.h"

using pht::RecordView;
using pht::Str;
using pht::u64;
using pht::u8;

namespace {

void check_note(const u8 *data, size_t size) {
    pht::NoteView note;
    if (!pht::view_note(data, size, &note)) return;
    const auto *const from = reinterpret_cast<const char *>(data), *const to = from + size;
    for (const Str &part : {note.kernel, note.reason, note.origin})
        CHECK(part.data >= from && part.data + part.size <= to);
}

void check_record(const u8 *data, size_t size) {
    RecordView view;
    if (pht::view_record(data, size, &view)) fuzz::check_view(view, data, size);
    check_note(data, size);
}

// The way of a start: by its name, below a store's index.
void check_found(const std::string &bytes, u64 bias, u8 way) {
    pht::sys::FileIdentity file;
    file.dev_major = 8;
    file.inode = 7;
    if (bytes.size() >= sizeof(pht::Record)) {
        pht::Record head;
        memcpy(&head, bytes.data(), sizeof head);
        file = {head.dev_major,
                head.dev_minor,
                head.inode,
                head.file_size,
                head.mtime,
                head.ctime,
                head.mtime_ns,
                head.ctime_ns,
                0,
                0,
                0,
                0};
        if (way & 1) bias = head.bias;
    }
    fuzz::world.add_directory("/index");
    fuzz::world.add("/proc/sys/kernel/random/boot_id", "01234567-89ab-cdef-0123-456789abcdef\n");
    pht::BuildId id;
    id.size = way >> 4;
    const Str path = pht::str("/lib/libx.so");
    const std::string index_name = "/index/";
    const std::string names[] = {index_name + pht::record_key(file, bias).data,
                                 index_name + pht::image_key(file, id, path, bias).data};
    for (const std::string &name : names) {
        fuzz::Node &node = fuzz::world.add(name, bytes);
        node.mode = S_IFREG | (way & 2 ? 0444 : 0644);
        node.mtime = fuzz::world.now - (way & 4 ? 10 : pht::kDay * 2);
        node.ctime = fuzz::world.now - 5;
    }
    pht::Outcome outcome;
    const int index = static_cast<int>(pht::sys::open("/index").word);
    {
        pht::RecordRoom room;
        RecordView view;
        pht::Boot boot;
        outcome = pht::find_record(index, file, bias, boot, room, &view);
        if (outcome.ok()) {
            fuzz::check_view(view, reinterpret_cast<const u8 *>(view.head), bytes.size());
            CHECK(pht::is_record_of(*view.head, file, bias));
        }
    }
    {
        pht::RecordRoom room;
        RecordView view;
        pht::Boot boot;
        pht::ImageMatch match;
        const pht::ImageFile image = {index, file, id, path, bias};
        outcome = pht::find_image_record(index, image, boot, room, &view, &match);
        if (outcome.ok()) CHECK(view.head->bias == bias && view.head->inode == 0);
        CHECK(!match.same || match.record.inode);
    }
    pht::sys::close(index);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    const fuzz::Execution execution;
    fuzz::fresh();
    fuzz::Input input(data, size);
    const u8 kind = input.number(), way = input.number();
    fuzz::world.step = kind & 4 ? 100 : ~size_t{0};
    fuzz::world.fail_after = kind & 8 ? 1 + (way & 3) : 0;
    fuzz::world.file_system = kind & 16 ? OVERLAYFS_SUPER_MAGIC : 0;
    std::string bytes(input.rest());
    if ((kind & 1) && bytes.size() >= sizeof(pht::Record)) {
        memcpy(bytes.data(), pht::kRecordMagic, sizeof pht::kRecordMagic);
        pht::seal_record(reinterpret_cast<u8 *>(bytes.data()), bytes.size());
    }
    {
        // As large as it is, at an address of 16 bytes, as the core has it.
        fuzz::Exact exact(bytes);
        check_record(exact.bytes(), exact.size());
    }
    check_found(bytes, 0x1000, way);
    CHECK(fuzz::world.open_count() == 0);
    return 0;
}
