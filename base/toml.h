#pragma once

// toml++, compiled in where it is used and without exceptions: the shared library would have to be
// loaded at every start. What it asserts of a file (version 3.3) it checks again and reports; a
// file that is wrong must not abort us.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ASSERT(expression) static_assert(true)
#include <toml++/toml.h>
