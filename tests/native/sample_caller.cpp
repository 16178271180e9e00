// Throws through sample_through() of another library, and catches behind it.
#include <stdexcept>
#include <string>

namespace {

struct Failure : std::runtime_error {
    explicit Failure(int value) : std::runtime_error(std::to_string(value)), value(value) {}
    int value;
};

int thrower(int x) {
    throw Failure(x);
}

}  // namespace

// 0 when the exception arrived and the frame between was unwound.
extern "C" int caller_check(int (*through)(int (*)(int), int, int *)) {
    int unwound = 0;
    try {
        through(thrower, 42, &unwound);
    } catch (const Failure &failure) {
        return failure.value == 42 && failure.what() == std::string("42") && unwound == 1 ? 0 : 1;
    }
    return 2;
}
