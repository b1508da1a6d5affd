// Pastes the polygons of one image while walking down its rows. Included once for every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "paste_cut.h"
#include "tile.h"

namespace twostage {
namespace {

constexpr std::int64_t kRowsAhead = 8;  // how early the memory of a row is asked for

// The rows of `out` that are being pasted into: its own memory, or a copy in T where its pixels have another type or
// do not lie side by side.
template <typename T>
class ImageRows {
  public:
    ImageRows(const PasteImages& images, std::int64_t image, T* staging, const T** pointers)
        : images_(images), size_(pixel_size(images.type)), staging_(staging), rows_(const_cast<T**>(pointers)) {
        base_ = static_cast<char*>(images.out) + image * images.image_stride[0] * size_;
    }

    static bool staged(const PasteImages& images) {
        return images.image_stride[3] != 1 || pixel_size(images.type) != sizeof(T);
    }

    // One pointer for each channel, to columns counted from 0. Only `columns` may be used.
    T* const* open(std::int64_t row, Run columns) {
        const std::int64_t* stride = images_.image_stride;
        for (std::int64_t channel = 0; channel < images_.channels; ++channel) {
            char* const from = at(row, channel);
            rows_[channel] = staged(images_) ? staging_ + channel * images_.width : reinterpret_cast<T*>(from);
            if (staged(images_))
                with_type(from, [to = rows_[channel], columns, stride = stride[3]](const auto* pixels) {
                    each(columns, stride,
                         [=](std::int64_t x, std::int64_t place) { to[x] = static_cast<T>(number(pixels[place])); });
                });
        }
        return rows_;
    }

    void fetch(std::int64_t row, Run columns) const {
        const std::int64_t stride = images_.image_stride[3] * size_;
        for (std::int64_t channel = 0; channel < images_.channels; ++channel)
            for (std::int64_t byte = columns.begin * stride; byte < columns.end * stride; byte += kCacheLine)
                __builtin_prefetch(at(row, channel) + byte, 1);
    }

    // Writes back the pixels whose opacity is not 0.
    void close(std::int64_t row, Run columns, const T* opacity) {
        if (!staged(images_)) return;
        const std::int64_t stride = images_.image_stride[3];
        for (std::int64_t channel = 0; channel < images_.channels; ++channel)
            with_type(at(row, channel), [from = rows_[channel], columns, opacity, stride](auto* __restrict pixels) {
                each(columns, stride, [=](std::int64_t x, std::int64_t place) {
                    auto pixel = pixels[place];
                    put(from[x], pixel);
                    pixels[place] = opacity[x] != 0 ? pixel : pixels[place];
                });
            });
    }

  private:
    char* at(std::int64_t row, std::int64_t channel) const {
        return base_ + (channel * images_.image_stride[1] + row * images_.image_stride[2]) * size_;
    }

    // body(x, x * stride), in a loop of its own where pixels lie side by side.
    template <typename Body>
    static TWOSTAGE_INLINE void each(Run columns, std::int64_t stride, Body&& body) {
        if (stride == 1)
            for (std::int64_t x = columns.begin; x < columns.end; ++x) body(x, x);
        else
            for (std::int64_t x = columns.begin; x < columns.end; ++x) body(x, x * stride);
    }

    // body(pixels) with the type that they have.
    template <typename Body>
    void with_type(char* pixels, Body body) const {
        if constexpr (sizeof(T) == 8) {
            body(reinterpret_cast<double*>(pixels));
        } else {
            switch (images_.type) {
                case PixelType::kUint8:
                    return body(reinterpret_cast<std::uint8_t*>(pixels));
                case PixelType::kFloat16:
                    return body(reinterpret_cast<Half*>(pixels));
                case PixelType::kBfloat16:
                    return body(reinterpret_cast<Bfloat*>(pixels));
                default:
                    return body(reinterpret_cast<float*>(pixels));
            }
        }
    }

    const PasteImages& images_;
    std::int64_t size_;
    char* base_;
    T* staging_;
    T** rows_;
};

// Copies the image, and clears its opacity.
template <typename T>
void start_image(const PasteProblem<T>& problem, std::int64_t image) {
    const PasteImages& images = problem.images;
    const std::int64_t pixels = images.height * images.width, size = pixel_size(images.type);
    if (images.out != images.target) {
        const std::int64_t begin = image * images.image_stride[0] * size;
        std::memcpy(static_cast<char*>(images.out) + begin, static_cast<const char*>(images.target) + begin,
                    static_cast<std::size_t>(images.channels * pixels * size));
    }
    std::memset(problem.opacity + image * pixels, 0, static_cast<std::size_t>(pixels) * sizeof(T));
}

template <typename T>
void paste_image(const PasteProblem<T>& problem, std::int64_t image) {
    const PasteImages& images = problem.images;
    std::vector<Cut<T>> cuts;
    Workspace needed;
    for (std::int64_t i = problem.first[image]; i < problem.first[image + 1]; ++i) {
        Cut<T> cut(problem, problem.order[i]);
        if (cut.touched().empty()) continue;
        cut.lay_out(needed);
        cuts.push_back(cut);
    }
    if (cuts.empty()) return start_image(problem, image);
    const auto lay_out_rows = [&](Workspace& workspace) {
        T* const staging = workspace.take<T>(ImageRows<T>::staged(images) ? images.channels * images.width : 0);
        const T** const pointers = workspace.take<const T*>(images.channels);
        return ImageRows<T>(images, image, staging, pointers);
    };
    lay_out_rows(needed);
    Workspace workspace(thread_scratch(needed.bytes()));
    for (Cut<T>& cut : cuts) cut.lay_out(workspace);
    ImageRows<T> rows = lay_out_rows(workspace);
    // The sources are on their way while the image is copied.
    for (Cut<T>& cut : cuts) cut.fetch_source();
    start_image(problem, image);

    std::int64_t row_begin = images.height, row_end = 0;
    for (const Cut<T>& cut : cuts) {
        row_begin = cut.touched().row_begin < row_begin ? cut.touched().row_begin : row_begin;
        row_end = cut.touched().row_end > row_end ? cut.touched().row_end : row_end;
    }
    for (std::int64_t row = row_begin; row < row_end; ++row) {
        Run columns{images.width, 0};
        for (Cut<T>& cut : cuts) {
            const Run own = cut.advance(row);
            if (own.begin >= own.end) continue;
            columns.begin = own.begin < columns.begin ? own.begin : columns.begin;
            columns.end = own.end > columns.end ? own.end : columns.end;
        }
        if (columns.begin >= columns.end) continue;
        if (row + kRowsAhead < row_end) rows.fetch(row + kRowsAhead, columns);
        T* const opacity_row = problem.opacity + (image * images.height + row) * images.width;
        T* const* image_row = rows.open(row, columns);
        for (Cut<T>& cut : cuts) cut.paste(image_row, opacity_row);
        rows.close(row, columns, opacity_row);
    }
}

}  // namespace
}  // namespace twostage
