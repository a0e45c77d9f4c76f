// Lines on the serial port.

#include <stdarg.h>

#include "cpu.h"
#include "guest.h"

#define SERIAL 0x3f8
#define SERIAL_FIFO_CONTROL (SERIAL + 2)
#define SERIAL_LINE_STATUS (SERIAL + 5)
#define SERIAL_TRANSMITTER_EMPTY 0x20
#define SERIAL_FIFO_SIZE 16

void print_init(void) {
    outb(SERIAL_FIFO_CONTROL, 1);
}

void put(char c) {
    static unsigned room;  // in the FIFO: its state is asked for once in sixteen characters, as
                           // each question is an exit
    if (room == 0) {
        while (!(inb(SERIAL_LINE_STATUS) & SERIAL_TRANSMITTER_EMPTY)) relax();
        room = SERIAL_FIFO_SIZE;
    }
    room--;
    outb(SERIAL, (uint8_t)c);
}

static void put_text(const char* text) {
    while (*text) put(*text++);
}

static void put_number(uint64_t number, unsigned base, unsigned digits) {
    char text[24];
    unsigned at = sizeof text - 1;
    text[at] = 0;
    do {
        text[--at] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number || sizeof text - 1 - at < digits);
    put_text(text + at);
}

static void print(const char* format, va_list* values) {
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        const char kind = *++format;
        if (kind == 's') {
            put_text(va_arg(*values, const char*));
            continue;
        }
        if (kind == 'c') {
            put((char)va_arg(*values, int));
            continue;
        }
        uint64_t number = va_arg(*values, uint64_t);
        if (kind == 'd' && (int64_t)number < 0) {
            put('-');
            number = -number;
        }
        if (kind == 'x') {
            put_text("0x");
            put_number(number, 16, 1);
        } else if (kind == 'f') {
            put_number(number / 1000, 10, 1);
            put('.');
            put_number(number % 1000, 10, 3);
        } else {
            put_number(number, 10, 1);
        }
    }
}

void say_part(const char* format, ...) {
    va_list values;
    va_start(values, format);
    print(format, &values);
    va_end(values);
}

void say(const char* format, ...) {
    va_list values;
    va_start(values, format);
    say_part("guest %s: ", guest_name);
    print(format, &values);
    put('\n');
    va_end(values);
}
