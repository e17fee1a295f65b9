/* Feeds @NAME@.c what the Verilog test bench feeds the network, and compares what comes out.

   cc -std=c99 -O2 -o check @NAME@_check.c @NAME@.c && ./check

   Written by hwrnn @VERSION@. It reads stimulus.hex and expected.hex where it runs, or two files that it is given, and
   ends with 0 where nothing differs, 1 where something does, 2 where it cannot tell. */

#include <stdio.h>

#include "@NAME@.h"

#define INPUT_BITS @INPUT_BITS@   /* of a word in the files, at least those of the format */
#define OUTPUT_BITS @OUTPUT_BITS@
#define CHANNELS @CHANNELS@       /* independent sequences that take turns, vector by vector */

typedef struct {
    unsigned long flags; /* 1 with a sequence's last element; its channel above */
    unsigned long long value;
} word;

/* The next word of a file; 0 where there is none. */
static int next(FILE *file, word *into)
{
    char line[256];
    while (fgets(line, sizeof line, file) != NULL)
        if (line[0] != '/')
            return sscanf(line, "%lx_%llx", &into->flags, &into->value) == 2;
    return 0;
}

static int told(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 2;
}

int main(int count, char **names)
{
    static @NAME@_state states[CHANNELS];
    const unsigned long long low = ~0ULL >> (64 - OUTPUT_BITS);
    FILE *stimulus = fopen(count > 2 ? names[1] : "stimulus.hex", "r");
    FILE *expected = fopen(count > 2 ? names[2] : "expected.hex", "r");
    unsigned long channel = 0, compared = 0, wrong = 0;
    word in = {0, 0}, due = {0, 0};

    if (stimulus == NULL || expected == NULL)
        return told("stimulus.hex and expected.hex must be where the program runs, or its two arguments");
    for (channel = 0; channel < CHANNELS; channel++)
        @NAME@_init(&states[channel]);
    for (channel = 0; next(stimulus, &in); channel = (channel + 1) % CHANNELS) {
        @X@ x[@MACRO@_INPUTS];
        @Y@ y[@MACRO@_OUTPUTS];
        uint32_t vectors;
        int k, last = 0;
        for (k = 0; k < @MACRO@_INPUTS; k++) {
            const unsigned long long sign = @MACRO@_INPUT_LOWEST < 0 ? 1ULL << (INPUT_BITS - 1) : 0;
            x[k] = (@X@)((long long)(in.value ^ sign) - (long long)sign);
            last = (int)(in.flags & 1);
            if (k + 1 < @MACRO@_INPUTS && !next(stimulus, &in))
                return told("the stimulus must end with a whole vector");
        }
        vectors = @NAME@_step(&states[channel], x, last, y);
        while (vectors) {
            for (k = 0; k < @MACRO@_OUTPUTS; k++) {
                const int ends = last && vectors == 1 && k + 1 == @MACRO@_OUTPUTS;
                const unsigned long flags = 2 * channel + (unsigned long)ends;
                const unsigned long long value = (unsigned long long)y[k] & low;
                compared++;
                if (!next(expected, &due) || due.flags != flags || due.value != value)
                    wrong++;
            }
            vectors = @NEXT@;
        }
    }
    while (next(expected, &due)) {
        compared++;
        wrong++;
    }
    printf("%s @NAME@: %lu of %lu output elements differ\n", wrong || !compared ? "FAIL" : "PASS", wrong, compared);
    return wrong || !compared;
}
