// The bench of scripts/flip.py around a model that CXXRTL wrote: it runs sequences through the network, without stalls,
// and flips bits of a memory or a register on the way.
//
// It is compiled behind the model and behind the macros that hwrnn/sim/cxxrtl.py writes for its own driver. FAULTS(X)
// is X(port) of every output that tells of faults, ITEMS(X) is X(member) of every register and memory.

#include <cstdint>
#include <vector>

namespace {

using Top = cxxrtl_design::p_top;

// The layout is that of the class in scripts/flip.py.
struct Run {
	const uint64_t *payloads;
	int64_t count;
	uint64_t *outputs;
	int64_t capacity, expected, patience;
	// Which item to flip, which word and which bit of it, and in which cycle; item -1 flips nothing.
	int64_t item, address, bit, when;
	// What came of it.
	int64_t received, cycles, faults;
};

// The words of a memory, or a register's present and next value.
struct Item {
	uint32_t *now, *next;
	int64_t chunks;
};

template<size_t Bits>
Item item_of(cxxrtl::wire<Bits> &wire) {
	return {wire.curr.data, wire.next.data, cxxrtl::value<Bits>::chunks};
}

template<size_t Bits>
Item item_of(cxxrtl::memory<Bits> &memory) {
	return {memory.data[0].data, nullptr, cxxrtl::value<Bits>::chunks};
}

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

void edge(Top &top) {
	drive(top.CLK, 1);
	drive(top.PREVIOUS_CLK, 0);
	top.eval();
}

void flip(const Item &item, const Run &run) {
	int64_t at = run.address * item.chunks + run.bit / 32;
	item.now[at] ^= UINT32_C(1) << run.bit % 32;
	if (item.next)
		item.next[at] ^= UINT32_C(1) << run.bit % 32;
}

} // namespace

extern "C" {

void *flip_new() {
	return new Top;
}

void flip_run(void *state, Run *given) {
	Top &top = *static_cast<Top *>(state);
	Run &run = *given;
	top.reset();  // with the words of the memories
	std::vector<Item> items;
#define ITEM(member) items.push_back(item_of(top.member));
	ITEMS(ITEM)
	drive(top.I_VALID, 0);
	drive(top.O_READY, 1);
	drive(top.RST, 1);
	for (int k = 0; k < 2; k++) {
		edge(top);
		top.commit();
	}
	drive(top.RST, 0);
	int64_t sent = 0, quiet = 0, tail = 0;
	run.received = run.cycles = run.faults = 0;
	while (quiet < run.patience && tail < 64) {
		if (run.item >= 0 && run.cycles == run.when)
			flip(items[run.item], run);
		if (sent < run.count)
			drive(top.I_PAYLOAD, run.payloads[sent]);
		drive(top.I_VALID, sent < run.count);
		edge(top);
		quiet++;
		if (read(top.O_VALID)) {
			if (run.received < run.capacity)
				run.outputs[run.received] = read(top.O_PAYLOAD);
			run.received++;
			quiet = 0;
		}
		if (sent < run.count && read(top.I_READY)) {
			sent++;
			quiet = 0;
		}
		int port = 0;
#define TELL(name) run.faults |= (int64_t)read(top.name) << port++;
		FAULTS(TELL)
		(void)port;
		top.commit();
		run.cycles++;
		if (run.received >= run.expected)
			tail++;
	}
}

} // extern "C"
