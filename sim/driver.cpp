// The test bench around a model that CXXRTL wrote: it drives both streams and records what they and the probes showed.
//
// It is compiled behind the model, in one translation unit. hwrnn/sim/cxxrtl.py puts macros before it that name the
// model's members: CLK, PREVIOUS_CLK, RST, I_PAYLOAD, I_VALID, I_READY, O_PAYLOAD, O_VALID, O_READY, and
// PROBES(X), which is X(value, valid) of every probe.
//
// One evaluation makes a cycle. Every signal that the bench drives depends on earlier cycles only, so what the network
// shows before the edge and what its registers take on at the edge come from the same pass.

#include <cstdint>

namespace {

using Top = cxxrtl_design::p_top;

// The layout of these two is that of the classes in hwrnn/sim/cxxrtl.py.
struct Partner {
	const uint8_t *pattern;
	int64_t period, waits;
};

struct Run {
	Partner input, output;
	const uint64_t *payloads;
	int64_t *input_cycles;
	int64_t count;
	uint64_t *outputs;
	int64_t *output_cycles;
	int64_t capacity, expected;
	uint64_t *const *probe_values;
	int64_t *const *probe_cycles;
	const int64_t *probe_capacities;
	int64_t *probe_counts;
	int64_t limit, patience, tail;
	// What changes while it runs.
	int64_t cycle, cycles, sent, received, quiet, offered, input_ready, output_valid, unsettled;
};

template<size_t Bits>
uint64_t read(const cxxrtl::value<Bits> &signal) {
	return signal.template zcast<64>().template get<uint64_t>();
}

template<size_t Bits>
uint64_t read(const cxxrtl::wire<Bits> &signal) {
	return read(signal.curr);
}

template<size_t Bits>
void drive(cxxrtl::value<Bits> &signal, uint64_t to) {
	cxxrtl::value<64> wide;
	wide.set<uint64_t>(to);
	signal = wide.template zcast<Bits>();
}

// Evaluate the rising edge. The registers take on their new values with commit() only.
bool edge(Top &top) {
	drive(top.CLK, 1);
	drive(top.PREVIOUS_CLK, 0);
	return top.eval();
}

// Record one probe; returns the next one's index.
int record(Run &run, int probe, uint64_t valid, uint64_t value) {
	if (valid) {
		int64_t at = run.probe_counts[probe]++;
		if (at < run.probe_capacities[probe]) {
			run.probe_values[probe][at] = value;
			run.probe_cycles[probe][at] = run.cycle;
		}
	}
	return probe + 1;
}

} // namespace

extern "C" {

void *hwrnn_new() {
	Top *top = new Top;
	drive(top->RST, 1);
	for (int k = 0; k < 2; k++) {
		edge(*top);
		top->commit();
	}
	drive(top->RST, 0);
	return top;
}

void hwrnn_delete(void *model) {
	delete static_cast<Top *>(model);
}

// Run on, for some cycles at most; whether the run is over.
int hwrnn_run(void *model, Run *state, int64_t cycles) {
	Top &top = *static_cast<Top *>(model);
	Run &run = *state;
	for (; cycles > 0; cycles--) {
		if (!run.offered && run.sent < run.count && run.input.pattern[run.cycle % run.input.period]) {
			run.offered = !run.input.waits || run.input_ready;
			if (run.offered)
				drive(top.I_PAYLOAD, run.payloads[run.sent]);
		}
		bool ready = run.output.pattern[run.cycle % run.output.period] && (!run.output.waits || run.output_valid);
		drive(top.I_VALID, run.offered);
		drive(top.O_READY, ready);
		if (!edge(top))
			run.unsettled = 1;
		run.input_ready = read(top.I_READY);
		run.output_valid = read(top.O_VALID);
		run.quiet++;
		if (run.received < run.expected)
			run.cycles = run.cycle + 1;
		if (run.offered && run.input_ready) {
			run.input_cycles[run.sent++] = run.cycle;
			run.offered = run.quiet = 0;
		}
		if (ready && run.output_valid) {
			if (run.received < run.capacity) {
				run.outputs[run.received] = read(top.O_PAYLOAD);
				run.output_cycles[run.received] = run.cycle;
			}
			run.received++;
			run.quiet = 0;
		}
		int probe = 0;
#define RECORD(value, valid) probe = record(run, probe, read(top.valid), read(top.value));
		PROBES(RECORD)
		(void)probe;
		top.commit();
		run.cycle++;
		if (run.received >= run.expected) {
			if (run.cycle >= run.cycles + run.tail)
				return 1;
		} else if (run.cycle >= run.limit || run.quiet >= run.patience) {
			return 1;
		}
	}
	return 0;
}

} // extern "C"
