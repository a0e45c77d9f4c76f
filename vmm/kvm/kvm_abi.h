#pragma once

/// <linux/kvm.h> as a C++ compiler must see it: the only way for our code to include it.
///
/// Some versions of the header declare flexible arrays through a macro that contains an empty
/// struct. That takes a byte in C++, which changes the sizes of structs and with them the numbers
/// of the ioctls.

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]
#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_msr_list) == 4);
static_assert(sizeof(kvm_xsave) == 4096);
