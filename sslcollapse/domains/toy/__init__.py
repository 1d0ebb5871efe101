"""The toy domain: Gaussian samples, noisy views."""
