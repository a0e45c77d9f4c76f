// More CPUs than the first.
#pragma once

#include <stdbool.h>

#include "layout.h"

// Starts CPU 1 … MAX_CPUS - 1, whose APIC id is its number, with work(cpu) in ring 3. False if it
// does not answer.
bool smp_start(unsigned cpu, void (*work)(unsigned cpu));
void smp_wait(unsigned cpu);  // until its work has returned
