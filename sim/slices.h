// Slices of wide signals, put before a model that CXXRTL wrote.
//
// CXXRTL's own slice copies the whole signal first. A word of weights is as wide as all lanes together, and every lane
// cuts its own from it, so that with a hundred lanes nearly all of the time goes into those copies.

#include <cxxrtl/cxxrtl.h>

// signal[High:Low]
template<size_t High, size_t Low, size_t Bits>
CXXRTL_ALWAYS_INLINE cxxrtl::value<High - Low + 1> cut(const cxxrtl::value<Bits> &signal) {
	constexpr size_t chunk_bits = cxxrtl::value<Bits>::chunk::bits;
	constexpr size_t first = Low / chunk_bits, shift = Low % chunk_bits;
	cxxrtl::value<High - Low + 1> result;
	for (size_t k = 0; k < result.chunks; k++) {
		result.data[k] = signal.data[first + k] >> shift;
		if (shift != 0 && first + k + 1 < signal.chunks)
			result.data[k] |= signal.data[first + k + 1] << (chunk_bits - shift) % chunk_bits;
	}
	result.data[result.chunks - 1] &= result.msb_mask;
	return result;
}

// Whether an odd number of the bits of a signal at some places is 1: CXXRTL would join them to a value first, step by
// step, and a compiler takes minutes over hundreds of steps.
template<size_t... Places, size_t Bits>
cxxrtl::value<1> odd(const cxxrtl::value<Bits> &signal) {
	constexpr size_t chunk_bits = cxxrtl::value<Bits>::chunk::bits;
	return cxxrtl::value<1>{(0u ^ ... ^ (signal.data[Places / chunk_bits] >> Places % chunk_bits)) & 1u};
}
