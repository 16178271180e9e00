#include "preload/json.h"

namespace pht::preload {

void Json::number(u64 value) {
    Buffer<24> digits;
    digits.add_decimal(value);
    separate();
    add({digits.data, digits.size});
}

// What is no UTF-8 becomes what Python's os.fsdecode() makes of it, so that the path comes back.
void Json::quoted(Str value) {
    add(str("\""));
    const char *at = value.data, *const end = at + value.size;
    while (at < end) {
        const char *const start = at;
        const u32 character = take_character(&at, end);
        const bool escaped = character < 0x20 || (character >= 0xd800 && character < 0xe000);
        if (character == '"' || character == '\\') add(str("\\"));
        if (escaped) {
            add(str("\\u"));
            for (int shift = 12; shift >= 0; shift -= 4)
                add({&"0123456789abcdef"[character >> shift & 15], 1});
        } else {
            add({start, static_cast<size_t>(at - start)});
        }
    }
    add(str("\""));
}

}  // namespace pht::preload
