/* A program with a Python inside, which it starts and ends as often as it has rounds:
 * embedding EXECUTABLE CODE... ; EXECUTABLE says which environment, each CODE is run in a new
 * Python. */
#include <Python.h>
#include <stdio.h>

static int round_of(const char *executable, const char *code) {
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = PyConfig_SetBytesString(&config, &config.program_name, executable);
    if (!PyStatus_Exception(status)) {
        status = Py_InitializeFromConfig(&config);
    }
    PyConfig_Clear(&config);
    if (PyStatus_Exception(status)) {
        fprintf(stderr, "%s\n", status.err_msg);
        return 1;
    }
    const int failed = PyRun_SimpleString(code);
    return Py_FinalizeEx() || failed;
}

int main(int count, char **arguments) {
    for (int i = 2; i < count; ++i) {
        const int failed = round_of(arguments[1], arguments[i]);
        printf("round %d: %d\n", i - 1, failed);
        fflush(stdout);
    }
    return 3;
}
