#pragma once

// The kernel's header has a field with the name of a C++ keyword.
#define class class_
#include <linux/virtio_net.h>
#undef class
