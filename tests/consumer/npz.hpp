// Reading what refimpl-case/1 stores: JSON settings, and npz files of float64 and bool arrays.
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <valarray>
#include <vector>
using std::string;
using Vec = std::valarray<double>;  // with elementwise arithmetic
struct Array { std::vector<int> shape; Vec x; };
using Arrays = std::map<string, Array>;

inline string slurp(const string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": not readable");
    return {std::istreambuf_iterator<char>(file), {}};
}
inline size_t number(const string& s, size_t at, int bytes) {  // little endian
    size_t n = 0;
    while (bytes--) n = n << 8 | (unsigned char)s.at(at + bytes);
    return n;
}
inline Array npy(const string& s) {
    int width = s.at(6) == 1 ? 2 : 4;  // of the length of the header, by version
    size_t begin = 8 + width + number(s, 8, width), size = 1;
    string head = s.substr(8 + width, begin - 8 - width), shape = head.substr(head.find('(') + 1);
    bool boolean = head.find("'|b1'") != string::npos;
    if ((!boolean && head.find("'<f8'") == string::npos) || head.find("True") != string::npos)
        throw std::runtime_error("neither float64 nor bool in row-major order: " + head);
    Array a;
    for (char* p = &shape[0]; *p != ')';)
        if (std::isdigit(*p)) size *= a.shape.emplace_back(std::strtol(p, &p, 10)); else ++p;
    if (s.size() - begin != size * (boolean ? 1 : 8)) throw std::runtime_error("array truncated");
    a.x.resize(size);
    for (size_t i = 0; boolean && i < size; ++i) a.x[i] = s[begin + i];
    if (!boolean) std::memcpy(&a.x[0], &s[begin], 8 * size);
    return a;
}
inline Arrays npz(const string& path) {
    string s = slurp(path);
    size_t end = s.rfind("PK\5\6");  // end record of the zip file, then its central directory
    if (end == string::npos) throw std::runtime_error(path + ": no zip file");
    Arrays arrays;
    for (size_t n = number(s, end + 10, 2), at = number(s, end + 16, 4); n--;) {
        if (number(s, at + 10, 2)) throw std::runtime_error(path + ": compressed");
        size_t size = number(s, at + 24, 4), name = number(s, at + 28, 2);
        size_t local = number(s, at + 42, 4);
        size_t data = local + 30 + number(s, local + 26, 2) + number(s, local + 28, 2);
        arrays[s.substr(at + 46, name - 4)] = npy(s.substr(data, size));  // without ".npy"
        at += 46 + name + number(s, at + 30, 2) + number(s, at + 32, 2);
    }
    return arrays;
}
// The value of a key of case.json, without quotes; empty if it is not there. Keys are unique there.
inline string setting(const string& json, const string& key) {
    size_t at = json.find("\"" + key + "\":");
    if (at == string::npos) return "";
    size_t begin = json.find_first_not_of(" \t\r\n\"", at + key.size() + 3);
    return json.substr(begin, json.find_first_of("\",}\r\n ", begin) - begin);
}
