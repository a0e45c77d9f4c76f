#pragma once

/// toml++ as all of our files read it. Compiled in, without exceptions: the shared library would
/// have to be loaded at every start. Its assertions are about files, some of which make them fail
/// ("[" and a line's end) where the code behind them would report the error.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ASSERT(expr) static_assert(true)
#include <toml++/toml.h>
