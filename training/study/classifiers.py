"""The classical models of the study, and their predictions on images that they were not fitted to."""

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier


def classifiers(seed: int) -> dict[str, ClassifierMixin]:
    """All models by name, not fitted; a seed fixes what is random in them.

    Sized for hundreds of images and hundreds of features: a fit takes at most seconds on one core. What measures
    distances or adds features up gets them standardised.
    """
    return {
        "decision_tree": DecisionTreeClassifier(min_samples_leaf=5, random_state=seed),
        "random_forest": RandomForestClassifier(n_estimators=100, random_state=seed),
        "gradient_boosting": GradientBoostingClassifier(max_features="sqrt", random_state=seed),
        "naive_bayes": GaussianNB(),
        "nearest_neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=5)),
        "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)),
        "support_vector_machine": make_pipeline(StandardScaler(), SVC(C=10)),
        "multilayer_perceptron": make_pipeline(
            StandardScaler(),
            MLPClassifier((32,), alpha=0.1, learning_rate_init=0.005, max_iter=500, random_state=seed),
        ),
    }


def out_of_fold(
    model: ClassifierMixin, features: np.ndarray, synthetic: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a model says of every image when it was fitted to other groups, in `folds` folds: scores and predictions.

    `features` are float [N, count], `synthetic` bool [N], `groups` [N]: images of one group are in one fold, and the
    folds have as equal shares of both classes as that allows. The same folds for every model. Scores float64 [N] rise
    with the belief in synthetic: probabilities, or the decision function of a model that has none. Predictions are
    bool [N], the model's own.
    """
    scores, predicted = np.empty(len(synthetic)), np.empty(len(synthetic), dtype=bool)
    division = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fitted_to, held_out in division.split(features, synthetic, groups):
        fitted = clone(model).fit(features[fitted_to], synthetic[fitted_to])
        scores[held_out] = _scores(fitted, features[held_out])
        predicted[held_out] = fitted.predict(features[held_out])
    return scores, predicted


def _scores(fitted: ClassifierMixin, features: np.ndarray) -> np.ndarray:
    if hasattr(fitted, "predict_proba"):
        return np.asarray(fitted.predict_proba(features)[:, 1])
    return np.asarray(fitted.decision_function(features))
