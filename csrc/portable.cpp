// What the C and C++ libraries of a newer machine ask for, and those of an older one have not: so
// that a library built on either runs on both (the rest of it is in CMakeLists.txt). Hidden, as
// everything here: nobody else meets these.
#include <new>
#include <sstream>

#if defined(__x86_64__) && defined(__GLIBC__)

// glibc 2.32. False: shared pointers count atomically, whether or not there are other threads.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

#if defined(__GLIBCXX__)
namespace std {
// GCC 11.
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std
// GCC 9 and 11 added members, which torch's headers use.
template class std::basic_stringbuf<char>;
template class std::basic_ostringstream<char>;
template class std::basic_stringstream<char>;
#endif

#endif
