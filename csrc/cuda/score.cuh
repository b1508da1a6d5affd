// The score of one window and its derivatives, from the window's sums about a reference.
#pragma once

#include "filters.cuh"

namespace twostage {

template <typename T>
struct ScoreConstants {
    T alpha, beta, gamma, c1, c2, c3, noise;
    T with_luminance;  // of the product form: 1, or 0 where it is contrast * structure alone
};

// What a window's sums come to. `spread_x` and `spread_y` are the variances, with what keeps them from vanishing.
template <typename T>
struct Score {
    T deficit;  // how far the score stays below the highest
    T offset, slope, cross;
    T spread_x, spread_y;
};

// alpha * l + beta * c + gamma * s. Each part is a difference taken before it is squared or divided, so that equal
// images give exactly 0.
template <typename T>
TWOSTAGE_DEVICE Score<T> additive_score(const ScoreConstants<T>& k, Reference<T> about, T mean_x, T mean_y, T square_x,
                                        T square_y, T product) {
    const T variance_x = larger(multiply_add(-mean_x, mean_x, square_x), T(0)) + k.noise;
    const T variance_y = larger(multiply_add(-mean_y, mean_y, square_y), T(0)) + k.noise;
    const T covariance = multiply_add(-mean_x, mean_y, product) + k.noise;
    const T mu_x = about.x + mean_x, mu_y = about.y + mean_y;
    const T mu_difference = (about.x - about.y) + (mean_x - mean_y);

    const T luminance_ratio = mu_difference * reciprocal(multiply_add(mu_x, mu_x, multiply_add(mu_y, mu_y, k.c1)));
    const T luminance_deficit = mu_difference * luminance_ratio;

    const T inverse_x = inverse_root(variance_x), inverse_y = inverse_root(variance_y);
    const T sigma_x = variance_x * inverse_x, sigma_y = variance_y * inverse_y;
    const T sigma_difference = sigma_x - sigma_y;
    const T contrast_factor = reciprocal(variance_x + variance_y + k.c2);
    const T contrast_deficit = sigma_difference * sigma_difference * contrast_factor;

    const T sigma_product = sigma_x * sigma_y;
    const T structure_factor = reciprocal(sigma_product + k.c3);
    const T structure_deficit = larger((sigma_product - covariance) * structure_factor, T(0));

    const T excess = -sigma_difference * inverse_x;  // sigma_y / sigma_x - 1
    const T luminance_scale = 2 * k.alpha * luminance_ratio, contrast_scale = 2 * k.beta * contrast_factor;
    Score<T> score;
    score.cross = k.gamma * structure_factor;
    const T structure_scale = multiply_add(-score.cross, structure_deficit, score.cross);
    score.slope = contrast_scale * (excess + contrast_deficit) - multiply_add(structure_scale, excess, structure_scale);
    const T by_mean = luminance_scale * multiply_add(mu_x, luminance_ratio, T(-1));
    score.offset = multiply_add(-score.slope, mean_x, multiply_add(-score.cross, mean_y, by_mean));
    score.deficit =
        multiply_add(k.alpha, luminance_deficit, multiply_add(k.beta, contrast_deficit, k.gamma * structure_deficit));
    score.spread_x = variance_x;
    score.spread_y = variance_y;
    return score;
}

// l * c * s, or c * s. `square_difference` is that of (x - x0) - (y - y0).
template <typename T>
TWOSTAGE_DEVICE Score<T> product_score(const ScoreConstants<T>& k, Reference<T> about, T mean_x, T mean_y,
                                       T square_difference, T product) {
    const T mean_difference = mean_x - mean_y;
    const T variance_difference = larger(multiply_add(-mean_difference, mean_difference, square_difference), T(0));
    const T covariance = multiply_add(-mean_x, mean_y, product);
    const T variances = larger(multiply_add(T(2), covariance, variance_difference), T(0)) + k.c2;
    const T mu_x = about.x + mean_x, mu_y = about.y + mean_y;
    const T mu_difference = (about.x - about.y) + mean_difference;

    const T luminance_ratio =
        k.with_luminance * mu_difference * reciprocal(multiply_add(mu_x, mu_x, multiply_add(mu_y, mu_y, k.c1)));
    const T luminance_deficit = mu_difference * luminance_ratio;
    const T factor = reciprocal(variances);
    const T structure_deficit = variance_difference * factor;

    Score<T> score;
    const T scale = 2 * factor;
    score.cross = multiply_add(-scale, luminance_deficit, scale);
    score.slope = multiply_add(score.cross, structure_deficit, -score.cross);
    const T luminance_scale = 2 * luminance_ratio;
    const T by_mean =
        multiply_add(-luminance_scale, structure_deficit, luminance_scale) * multiply_add(mu_x, luminance_ratio, T(-1));
    score.offset = multiply_add(-score.slope, mean_x, multiply_add(-score.cross, mean_y, by_mean));
    score.deficit = multiply_add(-luminance_deficit, structure_deficit, luminance_deficit + structure_deficit);
    score.spread_x = score.spread_y = variances;
    return score;
}

}  // namespace twostage
